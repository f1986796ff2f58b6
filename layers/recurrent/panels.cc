#include "layers/recurrent/panels.h"

#include <algorithm>

#include "runtime/base/arena.h"

namespace plait {

void sum_decays(const float* log_decays, Index count, double* sums) {
  double sum = 0;
  for (Index i = 0; i < count; ++i) sums[i] = sum += static_cast<double>(log_decays[i]);
}

void sum_channels(View<const float> g, Index count, double* sums) {
  for (Index i = 0; i < count; ++i)
    for (Index d = 0; d < g.cols; ++d)
      sums[i * g.cols + d] = (i == 0 ? 0.0 : sums[(i - 1) * g.cols + d]) + static_cast<double>(g(i, d));
}

void exp_differences(const Kernels& k, const double* from, const double* to, double power, float* y,
                     Index n) {
  for (Index d = 0; d < n; ++d) y[d] = static_cast<float>(power * (to ? from[d] - to[d] : from[d]));
  k.exp(y, y, n);
}

void decay_values(const Kernels& k, const float* log_decays, View<float> x, std::span<float> decay) {
  Arena::Scope scope(scratch());
  double* sums = scope.take<double>(x.rows);
  float* factors = scope.take(x.rows);
  sum_decays(log_decays, x.rows, sums);
  k.exp_difference_from(sums[x.rows - 1], sums, factors, x.rows);
  for (Index j = 0; j < x.rows; ++j) k.scale(x.row(j), factors[j], x.row(j), x.cols);
  k.exp_difference(sums + x.rows - 1, 0.0, decay.data(), 1);
  std::fill(decay.begin() + 1, decay.end(), decay[0]);
}

void write_columns(View<const float> rows, Index first, float* columns, Index stride) {
  for (Index i = 0; i < rows.rows; ++i) {
    const float* row = rows.row(i);
    float* column = columns + first + i;
    for (Index c = 0; c < rows.cols; ++c) column[c * stride] = row[c];
  }
}

void read_columns(const float* columns, Index stride, View<float> rows) {
  for (Index i = 0; i < rows.rows; ++i) {
    float* row = rows.row(i);
    for (Index c = 0; c < rows.cols; ++c) row[c] = columns[c * stride + i];
  }
}

void score(const Kernels& k, View<const float> x, const float* columns, Index stride, Index count,
           View<float> y) {
  for (Index j = 0; j < count; j += kPanel)
    k.panel(x.rows, x.cols, std::min(kPanel, count - j), x.data, x.stride, columns + j, stride, y.data + j,
            y.stride, Start::zero);
}

void read_state(const Kernels& k, const StateShape& shape, View<const float> x, const float* state,
                View<float> y) {
  shape.for_each_panel([&](Index p, Index column, Index columns) {
    k.panel(x.rows, shape.key, columns, x.data, x.stride, state + p * shape.key * kPanel, kPanel,
            y.data + column, y.stride, Start::zero);
  });
}

void write_state(const Kernels& k, const StateShape& shape, View<const float> keys, View<const float> x,
                 const float* decay, float* state) {
  shape.for_each_panel([&](Index p, Index column, Index columns) {
    float* panel = state + p * shape.key * kPanel;
    if (decay)
      k.panel_decayed(shape.key, x.rows, columns, keys.data, keys.stride, x.data + column, x.stride, decay,
                      panel, kPanel);
    else
      k.panel(shape.key, x.rows, columns, keys.data, keys.stride, x.data + column, x.stride, panel, kPanel,
              Start::present);
  });
}

void combine_triangular(const Kernels& k, Index first, View<const float> weights, View<const float> x,
                        View<float> y) {
  for (Index c = 0; c < y.cols; c += kPanel)
    k.panel_triangular(y.rows, first + 1, std::min(kPanel, y.cols - c), weights.data, weights.stride,
                       x.data + c, x.stride, y.data + c, y.stride, Start::present);
}

void solve_triangular(const Kernels& k, Index first, View<const float> weights, View<float> x) {
  // Rows in groups: what a group takes from rows before it is one product, only the group itself is row by
  // row. The chain of an element is the same for any grouping.
  constexpr Index kGroup = 8;
  for (Index begin = first; begin < x.rows; begin += kGroup) {
    const Index rows = std::min(kGroup, x.rows - begin);
    const float* group = weights.row(begin - first);
    for (Index c = 0; begin > 0 && c < x.cols; c += kPanel)
      k.panel(rows, begin, std::min(kPanel, x.cols - c), group, weights.stride, x.data + c, x.stride,
              x.row(begin) + c, x.stride, Start::present);
    for (Index i = 1; i < rows; ++i)
      k.combine(i, x.cols, group + i * weights.stride + begin, x.row(begin), x.stride, x.row(begin + i),
                Start::present);
  }
}

}  // namespace plait
