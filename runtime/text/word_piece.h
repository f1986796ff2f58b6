// WordPiece (Schuster and Nakajima 2012): the longest token first, from left to right; a word that cannot be
// spelled is one unknown token.
#pragma once

#include <string>
#include <vector>

#include "runtime/text/subword.h"
#include "runtime/text/trie.h"

namespace plait {

struct WordPieceOptions {
  std::string prefix;  // of every token but the first of a word
  Token unknown = 0;
  Index longest_word = 100;  // in characters; longer words are unknown
};

class WordPiece final : public Subword {
 public:
  WordPiece(Vocabulary vocabulary, WordPieceOptions options);
  const char* kind() const override { return "word-piece"; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  void encode(std::string_view piece, std::vector<Token>& out) const override;

 private:
  Vocabulary vocabulary_;
  WordPieceOptions options_;
  Trie trie_;
  Trie::Node inner_;  // where the prefix leads
};

}  // namespace plait
