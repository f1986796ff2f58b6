// The unigram language model (Kudo 2018): of all ways to cut a piece into tokens the likeliest.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "runtime/text/subword.h"
#include "runtime/text/trie.h"

namespace plait {

class Unigram final : public Subword {
 public:
  enum class Fallback { none, bytes };

  // scores [vocabulary.limit()], log probabilities, finite; every id up to there has a text.
  Unigram(Vocabulary vocabulary, std::vector<double> scores, std::optional<Token> unknown, Fallback fallback);

  const char* kind() const override { return "unigram"; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  // Throws Error for a character without a token if there is no unknown token.
  void encode(std::string_view piece, std::vector<Token>& out) const override;

 private:
  void emit(std::string_view text, std::vector<Token>& out) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  std::optional<Token> unknown_;
  Fallback fallback_;
  double unknown_score_;
  Trie trie_;
  std::array<Token, 256> bytes_;
};

}  // namespace plait
