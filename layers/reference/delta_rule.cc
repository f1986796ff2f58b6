#include "layers/reference/delta_rule.h"

#include <cmath>
#include <vector>

namespace plait::reference {
namespace {

double dot(const double* a, const double* b, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// a_t = g_0 + .. + g_t of one head
std::vector<double> decay_sums(const DeltaInputs& in, Index head) {
  std::vector<double> sums;
  double sum = 0;
  for (Index t = 0; t < in.k.rows; ++t) sums.push_back(sum += in.g ? (*in.g)(t, head) : 0);
  return sums;
}

}  // namespace

Rows effective_matrix(const DeltaInputs& in, Index head) {
  const Index rows = in.k.rows, key = in.heads.key;
  const Index query_column = head / (in.heads.states / in.heads.queries) * key;
  const Index key_column = head / (in.heads.states / in.heads.keys) * key;
  const std::vector<double> sums = decay_sums(in, head);
  const auto weight = [&](const double* left, Index t, Index j) {
    return dot(left, in.k.row(j) + key_column, key) *
           std::exp(sums[static_cast<std::size_t>(t)] - sums[static_cast<std::size_t>(j)]);
  };
  Rows solved(rows, rows), matrix(rows, rows);  // solved = (I + A)^-1 diag(beta)
  for (Index t = 0; t < rows; ++t) {
    solved(t, t) = in.beta(t, head);
    for (Index j = 0; j < t; ++j) {
      const double erased = in.beta(t, head) * weight(in.k.row(t) + key_column, t, j);
      for (Index c = 0; c <= j; ++c) solved(t, c) -= erased * solved(j, c);
    }
    for (Index j = 0; j <= t; ++j) {
      const double read = in.heads.scale * weight(in.q.row(t) + query_column, t, j);
      for (Index c = 0; c <= j; ++c) matrix(t, c) += read * solved(j, c);
    }
  }
  return matrix;
}

Rows effective_outputs(const DeltaInputs& in) {
  const Index value = in.heads.value;
  Rows o(in.v.rows, in.v.cols);
  for (Index h = 0; h < in.heads.states; ++h) {
    const Rows matrix = effective_matrix(in, h);
    for (Index t = 0; t < o.rows; ++t)
      for (Index j = 0; j <= t; ++j)
        for (Index c = h * value; c < (h + 1) * value; ++c) o(t, c) += matrix(t, j) * in.v(j, c);
  }
  return o;
}

void DeltaRuleTwin::run(std::span<const View<const double>> inputs, std::span<const Token>,
                        View<double> output) const {
  const DeltaInputs in = recurrence_inputs(inputs[0]);
  finish(delta_rule(in.heads, in.q, in.k, in.v, in.g ? &*in.g : nullptr, in.beta), inputs[0], output);
}

}  // namespace plait::reference
