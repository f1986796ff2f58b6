// The third stage of a tokenizer: a piece of text to tokens.
#pragma once

#include <string_view>
#include <vector>

#include "runtime/text/vocabulary.h"

namespace plait {

// Immutable; shared by threads.
class Subword {
 public:
  virtual ~Subword() = default;
  virtual const char* kind() const = 0;  // "byte-pair", "unigram", "word-piece"
  virtual const Vocabulary& vocabulary() const = 0;
  // Appends the tokens of `piece`, well-formed UTF-8 of 1 to 2^31 - 1 bytes. They depend on nothing else.
  virtual void encode(std::string_view piece, std::vector<Token>& out) const = 0;
};

}  // namespace plait
