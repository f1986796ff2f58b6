// tokenizer.json: an Error, or a tokenizer that its compiled tables give again.
#include <cstdlib>

#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"

namespace plait {
namespace {

// What a text becomes: ids, and the text and pieces of these, or nothing where the tokenizer gives it up.
struct Outcome {
  std::vector<Token> ids;
  std::string text;
  bool operator==(const Outcome&) const = default;
};

std::optional<Outcome> outcome(const Tokenizer& tokenizer, const char* text) try {
  Outcome out{tokenizer.encode(text), ""};
  out.text = tokenizer.decode(out.ids) + tokenizer.decode(out.ids, Specials::without);
  if (to_valid_utf8(out.text) != out.text) std::abort();
  for (const Token token : out.ids) tokenizer.piece(token);
  return out;
} catch (const Error&) {
  return std::nullopt;
}

}  // namespace
}  // namespace plait

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace plait;
  TokenizerFiles files = {{"tokenizer.json", std::string(reinterpret_cast<const char*>(data), size)}};
  try {
    const auto tokenizer = make_tokenizer(files, "fuzz");
    files[kCompiledTables] = compile_tokenizer(files, "fuzz");
    const auto compiled = make_tokenizer(files, "fuzz");
    for (const char* text : {"", "ab <s>a1 b", "\xC3\x84 \xE2\x96\x81\xFF\n 'S"})
      if (outcome(*tokenizer, text) != outcome(*compiled, text)) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
