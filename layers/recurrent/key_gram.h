// The decayed sum of outer products w k k' of a head's keys as every row of a chunk sees it, applied to
// vectors without being formed:
//   H_i = e^{b_i} H + sum_{j <= i} e^{b_i - b_j} w_j k_j k_j'
// (layers/recurrent/mesa_net.md, layers/recurrent/curvature_conditioned_query.md).
#pragma once

#include "layers/recurrent/panels.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/kernels.h"

namespace plait {

// One head's open rows. Tokens are columns.
struct KeyChunk {
  const float* keys = nullptr;        // [key][stride]
  const float* strengths = nullptr;   // [stride] w
  const float* log_decays = nullptr;  // [stride] <= 0; null = none
  Index stride = 0;
};

class KeyGram {
 public:
  // Rows [first, first + rows) of the chunk. What is computed once for all reads lives in `scope`.
  KeyGram(const Kernels& k, Index key, const KeyChunk& chunk, Index first, Index rows, Arena::Scope& scope);

  // y_i = H_i p_i. gram: H [ceil(key / 32), key, 32] as of the chunk's start; p, y [rows, key], not the same
  void apply(const float* gram, View<const float> p, View<float> y) const {
    read({keys_.cols, keys_.cols}, gram, keys_, p, y);
  }
  // y_i = S_i' p_i of the sum S_i of the outer products w k v'. state: S [ceil(value / 32), key, 32]; values
  // [end, value]
  void read(const StateShape& shape, const float* state, View<const float> values, View<const float> p,
            View<float> y) const;
  // d = diag H_i of row `i`. d [key]
  void diagonal(const float* gram, Index i, float* d) const;
  // H_i of row `i`. h [key, key]
  void form(const float* gram, Index i, View<float> h) const;

  View<const float> keys() const { return keys_; }        // [end, key], tokens are rows
  View<const float> weights() const { return weights_; }  // [rows, >= end] e^{b_i - b_j} w_j for j <= i
  float factor(Index i) const { return factors_[i]; }     // e^{b_i}

 private:
  const Kernels& k_;
  KeyChunk chunk_;
  Index first_;
  View<float> keys_, weights_, scores_;
  float* factors_;
};

// S <- e^{b_n} S + sum_j e^{b_n - b_j} w_j k_j x_j' over the chunk's first n rows. x [n, value], overwritten
void fold_outer(const Kernels& k, const StateShape& shape, const KeyChunk& chunk, View<float> x,
                float* state);
// The same with the keys for x.
void fold_gram(const Kernels& k, Index key, const KeyChunk& chunk, Index n, float* gram);

}  // namespace plait
