// Contents of /tokenizer/compiled, rightly sealed: an Error or a tokenizer.
#include "runtime/base/error.h"
#include "runtime/text/compiled_tables.h"
#include "runtime/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace plait;
  const std::string_view contents(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer =
        make_tokenizer({{"tokenizer.json", ""}, {kCompiledTables, seal_compiled(contents, "")}}, "fuzz");
    tokenizer->decode(tokenizer->encode("ab <s>a1 b\xC3\x84\xFF"));
  } catch (const Error&) {
  }
  return 0;
}
