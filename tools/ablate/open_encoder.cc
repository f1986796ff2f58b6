#include "tools/ablate/open_encoder.h"

#include <algorithm>

namespace plait::ablate {

OpenEncoder::OpenEncoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  const std::vector<Token> whole = tokenizer.encode("a", Specials::with),
                           plain = tokenizer.encode("a", Specials::without);
  const auto found = std::search(whole.begin(), whole.end(), plain.begin(), plain.end());
  front_.assign(whole.begin(), found);
  behind_ = static_cast<std::size_t>(whole.end() - found) - plain.size();
}

std::vector<Token> OpenEncoder::encode(std::string_view text) const {
  std::vector<Token> tokens = tokenizer_.encode(text, Specials::with);
  tokens.resize(tokens.size() - std::min(behind_, tokens.size()));
  return tokens;
}

std::size_t shared_length(std::span<const Token> a, std::span<const Token> b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace plait::ablate
