#include "runtime/text/tokenizer.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "runtime/text/compiled_tables.h"
#include "runtime/text/sentencepiece.h"
#include "runtime/text/special_tokens.h"
#include "runtime/text/tokenizer_json.h"

namespace plait {
namespace {

// Says what a byte model's tokens are to somebody who opens the model file with another program.
constexpr const char* kDescription = "plait_tokenizer.json";

class ByteDecoding final : public Decoding {
 public:
  explicit ByteDecoding(const ByteTokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(Token token) override { return stream_.push(tokenizer_.piece(token)); }
  std::string finish() override { return stream_.finish(); }

 private:
  const ByteTokenizer& tokenizer_;
  Utf8Stream stream_;
};

std::string described_kind(const std::string& description, const std::string& origin) {
  const auto json = nlohmann::json::parse(description, nullptr, false);
  if (!json.is_object() || !json.contains("kind") || !json["kind"].is_string())
    fail(origin, ": tokenizer file '", kDescription, "' is not an object with a text 'kind'");
  return json["kind"].get<std::string>();
}

// A model of bytes may have rows for tokens that are no bytes and end a text.
std::shared_ptr<const Tokenizer> byte_tokenizer(const TokenizerFiles& files, const std::string& origin) {
  constexpr Index kLimit = std::numeric_limits<Token>::max();
  return std::make_shared<ByteTokenizer>(
      find_special_tokens(files, origin, kLimit, [](const std::string& text) {
        return text.size() == 1 ? std::optional<Token>(static_cast<unsigned char>(text[0])) : std::nullopt;
      }));
}

}  // namespace

std::string Tokenizer::decode(std::span<const Token> tokens, Specials specials) const {
  const auto decoding = this->decoding(specials);
  std::string text;
  for (const Token token : tokens) text += decoding->push(token);
  return text + decoding->finish();
}

std::string ByteTokenizer::decode(std::span<const Token> tokens, Specials) const {
  std::string bytes;
  for (const Token token : tokens) bytes += piece(token);
  return bytes;
}

std::vector<Token> ByteTokenizer::encode(std::string_view text, Specials) const {
  std::vector<Token> tokens;
  tokens.reserve(text.size());
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::unique_ptr<Decoding> ByteTokenizer::decoding(Specials) const {
  return std::make_unique<ByteDecoding>(*this);
}

std::string ByteTokenizer::piece(Token token) const {
  if (token < 0 || token >= vocab()) fail("token ", token, " is outside the byte vocabulary of ", vocab());
  return std::string(1, static_cast<char>(token));
}

TokenizerFiles ByteTokenizer::files() const { return {{kDescription, R"({"kind": "bytes", "vocab": 256})"}}; }

std::string StreamDecoder::push(Token token) {
  if (token < tokenizer_->vocab()) return decoding_->push(token);
  std::string text = decoding_->finish();
  decoding_ = tokenizer_->decoding(specials_);
  return text + cat("<", token, ">");
}

std::shared_ptr<const Tokenizer> make_tokenizer(const TokenizerFiles& files, const std::string& origin) {
  if (files.empty()) return std::make_shared<ByteTokenizer>();
  if (files.contains(kTokenizerJson)) return std::make_shared<JsonTokenizer>(files, origin);
  if (files.contains("tokenizer.model")) return std::make_shared<SentencePiece>(files, origin);
  const auto description = files.find(kDescription);
  if (description == files.end())
    fail(origin, ": tokenizer file '", files.begin()->first,
         "' is of no kind this plait reads; it reads tokenizer.json, tokenizer.model and ", kDescription);
  const std::string kind = described_kind(description->second, origin);
  if (kind == "bytes") return byte_tokenizer(files, origin);
  fail(origin, ": its tokenizer is of kind '", kind.substr(0, 64), "'; this plait reads bytes");
}

std::string compile_tokenizer(const TokenizerFiles& files, const std::string& origin) {
  if (!files.contains(kTokenizerJson)) {
    make_tokenizer(files, origin);
    return {};
  }
  const std::string& source = files.at(kTokenizerJson);
  TokenizerFiles compiled = files;
  std::string& bytes = compiled[kCompiledTables];
  bytes = write_compiled(parse_parts(source, cat(origin, ": ", kTokenizerJson)), source);
  make_tokenizer(compiled, origin);
  return bytes;
}

}  // namespace plait
