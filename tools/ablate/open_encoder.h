// Texts that go on: where one ends and another begins in tokens.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "runtime/text/tokenizer.h"

namespace plait::ablate {

// Text as tokens that more tokens may follow: with what the tokenizer adds in front, without what it adds at
// the end. Borrows the tokenizer.
class OpenEncoder {
 public:
  explicit OpenEncoder(const Tokenizer& tokenizer);
  std::vector<Token> encode(std::string_view text) const;
  const std::vector<Token>& front() const { return front_; }

 private:
  const Tokenizer& tokenizer_;
  std::vector<Token> front_;
  std::size_t behind_ = 0;  // tokens
};

// Tokens two sequences have in common from their beginning.
std::size_t shared_length(std::span<const Token> a, std::span<const Token> b);

}  // namespace plait::ablate
