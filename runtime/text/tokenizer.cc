#include "runtime/text/tokenizer.h"

#include <nlohmann/json.hpp>

#include "runtime/base/error.h"

namespace plait {
namespace {

// Says what a byte model's tokens are to somebody who opens the model file with another program.
constexpr const char* kDescription = "plait_tokenizer.json";

std::string kind_of(const TokenizerFiles& files, const std::string& origin) {
  if (files.empty()) return "bytes";
  const auto description = files.find(kDescription);
  if (description == files.end())
    fail(origin, ": tokenizer file '", files.begin()->first,
         "' is of no kind this plait reads; it reads bytes");
  const auto json = nlohmann::json::parse(description->second, nullptr, false);
  if (!json.is_object() || !json.contains("kind") || !json["kind"].is_string())
    fail(origin, ": tokenizer file '", kDescription, "' is not an object with a text 'kind'");
  return json["kind"].get<std::string>();
}

}  // namespace

std::string Tokenizer::decode(std::span<const Token> tokens) const {
  std::string bytes;
  for (const Token token : tokens) bytes += piece(token);
  return bytes;
}

std::vector<Token> ByteTokenizer::encode(std::string_view text) const {
  std::vector<Token> tokens;
  tokens.reserve(text.size());
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::string ByteTokenizer::piece(Token token) const {
  if (token < 0 || token >= vocab()) fail("token ", token, " is outside the byte vocabulary of ", vocab());
  return std::string(1, static_cast<char>(token));
}

TokenizerFiles ByteTokenizer::files() const { return {{kDescription, R"({"kind": "bytes", "vocab": 256})"}}; }

std::shared_ptr<const Tokenizer> make_tokenizer(const TokenizerFiles& files, const std::string& origin) {
  const std::string kind = kind_of(files, origin);
  if (kind == "bytes") return std::make_shared<ByteTokenizer>();
  fail(origin, ": its tokenizer is of kind '", kind.substr(0, 64), "'; this plait reads bytes");
}

}  // namespace plait
