// The delta rule as the twins of its kinds use it: what enters the recurrence, and what becomes of what it
// gives. The recurrence itself is also written as one matrix, o = M v, by a triangular solve (Yang et al.,
// arXiv 2406.06484).
#pragma once

#include <optional>
#include <span>

#include "layers/reference/recurrence.h"
#include "layers/reference/twin.h"

namespace plait::reference {

struct DeltaInputs {
  Heads heads;                 // queries divide states
  Rows q, k;                   // [rows, queries * key], [rows, keys * key]
  Rows v;                      // [rows, states * value]
  std::optional<Rows> g = {};  // [rows, states] log decays; absent = 0
  Rows beta;                   // [rows, states]
};

// M [rows, rows] of one state head, lower triangular: o_t = sum_{j <= t} M(t, j) v_j. With a = sums of g and
// A(t, j) = beta_t (k_t.k_j) e^{a_t - a_j} for j < t (the erase term),
//   M = scale R (I + A)^-1 diag(beta),  R(t, j) = (q_t.k_j) e^{a_t - a_j} for j <= t.
Rows effective_matrix(const DeltaInputs& in, Index head);
// o [rows, states * value] by the matrices of all heads.
Rows effective_outputs(const DeltaInputs& in);

// The twin of a kind whose state follows the delta rule.
class DeltaRuleTwin : public Twin {
 public:
  void run(std::span<const View<const double>> inputs, std::span<const Token> tokens,
           View<double> output) const override;
  // x [tokens, width]: the layer's input
  virtual DeltaInputs recurrence_inputs(View<const double> x) const = 0;
  // o [tokens, states * value] -> y [tokens, width]
  virtual void finish(Rows o, View<const double> x, View<double> y) const = 0;
};

}  // namespace plait::reference
