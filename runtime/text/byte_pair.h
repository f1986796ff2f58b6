// Byte-pair encoding (Sennrich et al. 2016): characters, merged pair by pair in the order of the merges.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/text/subword.h"

namespace plait {

struct BytePairOptions {
  std::string prefix, suffix;  // of every character but the first; of the last; empty: none
  std::optional<Token> unknown;
  bool fuse_unknown = false, byte_fallback = false, ignore_merges = false;
};

// left and right, in the order of their priority, become `merged`.
struct Merge {
  Token left, right, merged;
};

class BytePair final : public Subword {
 public:
  // Ids of merges lie in the vocabulary. A pair given twice has its last place.
  BytePair(Vocabulary vocabulary, const std::vector<Merge>& merges, BytePairOptions options);

  const char* kind() const override { return "byte-pair"; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  // n log n in the length of the piece, with a queue of candidate merges.
  void encode(std::string_view piece, std::vector<Token>& out) const override;

 private:
  struct Rule {
    std::uint64_t pair;
    std::int32_t rank;  // -1: a free slot
    Token merged;
  };
  struct Symbol {
    Token token;
    std::int32_t previous, next;  // -1: none
    bool live;
  };
  struct Candidate {
    std::int32_t rank, at;
    Token merged;
  };
  struct Workspace {
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;
  };

  const Rule* rule(Token left, Token right) const;
  std::optional<Token> character(std::string_view piece, std::size_t begin, std::size_t end) const;
  bool spell_bytes(std::string_view text, std::vector<Symbol>& symbols) const;
  void split(std::string_view piece, std::vector<Symbol>& symbols) const;
  void push(Workspace& workspace, std::int32_t left, std::int32_t right) const;
  void merge(Workspace& workspace) const;

  Vocabulary vocabulary_;
  BytePairOptions options_;
  std::vector<Rule> rules_;         // open addressing
  std::vector<Token> characters_;   // by code point below 0x3400, without prefix and suffix; -1: none
  std::array<Token, 256> bytes_{};  // of byte fallback; -1: none
};

}  // namespace plait
