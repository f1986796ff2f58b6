// What the cores of forms A and B are made of: one head's matrix state in panels and the rows of one chunk.
#pragma once

#include <span>

#include "runtime/base/panel.h"
#include "runtime/base/view.h"
#include "runtime/kernels/kernels.h"

namespace plait {

// A head's state S [key, value] in panels [ceil(value / 32)][key][32]: a read S'x is a product with packed
// weights. Columns past `value` stay zero.
struct StateShape {
  Index key = 0, value = 0;
  Index panels() const { return ceil_div(value, kPanel); }
  Index elements() const { return panels() * key * kPanel; }
  // Calls body(panel, first column, columns).
  template <class Body>
  void for_each_panel(Body&& body) const {
    for (Index p = 0; p < panels(); ++p) body(p, p * kPanel, std::min(kPanel, value - p * kPanel));
  }
};

// exp of it is zero in f32; sums of log decays are clamped here, because a term of -1e4 would cost the f64
// differences of all later rows their last digits once narrowed.
inline constexpr float kLowestLogDecay = -104.0f;

// sums[i] = log_decays[0] + ... + log_decays[i], ascending in f64.
void sum_decays(const float* log_decays, Index count, double* sums);

// sums[i][d] = g_0[d] + ... + g_i[d] for i < count, ascending in f64. g [count, n]
void sum_channels(View<const float> g, Index count, double* sums);
// y[d] = exp(power (from[d] - to[d])), the product in f64, then narrowed; null `to` = 0.
void exp_differences(const Kernels& k, const double* from, const double* to, double power, float* y, Index n);

// A complete chunk's scalar log decays [x.rows], their sums b: x_j <- e^{b_n - b_j} x_j, the tokens' factors
// on the values, which are fewer to touch than the keys; every decay <- e^{b_n}.
void decay_values(const Kernels& k, const float* log_decays, View<float> x, std::span<float> decay);

// rows [n, width] become columns first .. first + n - 1 of columns [width][stride].
void write_columns(View<const float> rows, Index first, float* columns, Index stride);

// The reverse: rows [n, width] = the first n of columns [width][stride].
void read_columns(const float* columns, Index stride, View<float> rows);

// y[i][j] = x_i . column j for j < count. x [n, width], columns [width][stride], y [n, >= count]
void score(const Kernels& k, View<const float> x, const float* columns, Index stride, Index count,
           View<float> y);

// y = x S. x [n, key], y [n, value]
void read_state(const Kernels& k, const StateShape& shape, View<const float> x, const float* state,
                View<float> y);

// S <- diag(decay) S + sum_j key_j x_j', j ascending. keys [key, n] (tokens are columns), x [n, value], decay
// [key]; null leaves S as it is.
void write_state(const Kernels& k, const StateShape& shape, View<const float> keys, View<const float> x,
                 const float* decay, float* state);

// y_i += sum_{j < first + i + 1} weights[i][j] x_j, j ascending. weights [n, first + n], x [first + n, value]
void combine_triangular(const Kernels& k, Index first, View<const float> weights, View<const float> x,
                        View<float> y);

// Forward substitution: x_i += sum_{j < i} weights[i - first][j] x_j for rows i in [first, x.rows), j
// ascending. weights [x.rows - first, x.rows]
void solve_triangular(const Kernels& k, Index first, View<const float> weights, View<float> x);

}  // namespace plait
