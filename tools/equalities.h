// Equality of bits over everything that must not matter: how a text is split, packed and threaded, forks,
// rollbacks, files (architecture section 1, idea 1).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/stream.h"

namespace plait {

struct EqualityCheck {
  std::string name;  // "split 7,64,1"
  Numerics numerics;
  bool passed;
  std::string detail;  // what was compared, or where the first difference lies
};

// One text through one sort of stream; every member runs it in another way and compares all logits and the
// final state with those of the first run, which is one piece.
class Equalities {
 public:
  // `options` hold for every run. Borrows the tokens, at least two.
  Equalities(std::shared_ptr<const Model> model, std::span<const Token> tokens, StreamOptions options);

  enum class Depth { declared, none };
  enum class Side { fork, original };
  EqualityCheck split(const std::string& pattern) const;  // tools/likelihood.h
  EqualityCheck threads(int count) const;
  EqualityCheck instruction_set(Isa isa) const;
  EqualityCheck packing() const;        // between two other sequences, ragged
  EqualityCheck fork(Side side) const;  // at the middle
  // Without edits a rollback within the declared depth must not run the model.
  EqualityCheck rollback(Depth depth) const;
  EqualityCheck save_and_load() const;
  // A fresh stream that should make no difference.
  EqualityCheck same(const std::string& name, Stream stream) const;

 private:
  Index count() const { return static_cast<Index>(tokens_.size()); }
  std::span<const Token> first(Index n) const { return tokens_.first(static_cast<std::size_t>(n)); }
  std::span<const Token> from(Index n) const { return tokens_.subspan(static_cast<std::size_t>(n)); }
  std::vector<Token> reversed() const { return {tokens_.rbegin(), tokens_.rend()}; }
  Stream open(Index depth = 0) const;
  std::vector<float> logits(Stream& stream, std::span<const Token> tokens, const std::string& pattern) const;
  // Compares rows from position `begin` on, and the state they led to.
  EqualityCheck compare(const std::string& name, Index begin, std::span<const float> rows,
                        const Stream& stream, std::string detail) const;

  std::shared_ptr<const Model> model_;
  std::span<const Token> tokens_;
  StreamOptions options_;
  std::vector<float> whole_;  // [count, vocab]
  std::string state_;
};

// The same of one text through an encoder, which has no state and takes every text whole.
class EncoderEqualities {
 public:
  // Borrows the model and the tokens, at least two.
  EncoderEqualities(const Model& model, std::span<const Token> tokens, const Compute& compute);

  EqualityCheck threads(int count) const;
  EqualityCheck instruction_set(Isa isa) const;
  EqualityCheck packing() const;  // between other sequences of other lengths, in one walk

 private:
  EqualityCheck compare(const std::string& name, std::span<const float> rows, std::string detail) const;

  const Model& model_;
  std::span<const Token> tokens_;
  Compute compute_;
  std::vector<float> whole_;  // [tokens, width of the last node]
};

}  // namespace plait
