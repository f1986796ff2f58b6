// What tests of several folders share: small random models and comparison by bits.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/model.h"
#include "runtime/run/stream.h"

namespace plait::testing {

// Reproducible numbers that depend on (seed, counter) only.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed);
  std::uint64_t bits();
  double uniform(double low, double high);  // [low, high)
  double normal();
  std::vector<float> normals(Index count, double scale = 1);
  std::vector<Token> tokens(Index count, Index vocab);

 private:
  std::uint64_t state_;
};

// Weights for every tensor the card wants, drawn by its TensorSpec::init; matrices in panels of `matrices`.
ModelData random_data(const Json& card, std::uint64_t seed, DType matrices = DType::f32);
std::shared_ptr<const Model> random_model(const Json& card, std::uint64_t seed, DType matrices = DType::f32);

// embed -> norm -> one node of `kind` with `settings` -> add -> norm -> head; width 64, vocab 97, small key
// spans. The node's name is blocks.0.mixer. Kinds that are no residual branch (embedding, head, add) stand in
// their own place, a pair of nodes around the rest (normalization_equivariance) in place of the mixer and of
// add. An encoder if the kind wants one.
Json card_of_kind(const std::string& kind, const Json& settings, const Grids& grids = {32, 64, 128});

// Logits after every token, rows concatenated.
std::vector<float> all_logits(Stream& stream, std::span<const Token> tokens, const std::vector<Index>& split);

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}
// Largest |a - b| relative to the largest |b|.
double relative_error(std::span<const double> a, std::span<const double> b);

}  // namespace plait::testing
