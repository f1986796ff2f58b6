#include "runtime/kernels/linear.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "runtime/base/arena.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"

namespace plait {
namespace {

// Blocks for the caches; they cut loops, never a chain. A slice of a panel (64 kB) stays near while a block
// of rows passes over it, and a block of rows (768 kB) while panel after panel streams past.
constexpr Index kDepthF32 = 512, kDepthBf16 = 1024;
constexpr Index kBlockElements = 192 * 1024,
                kBlockRows = 96;  // at least so many rows share the reading of a panel

// Activations in bf16, `in` padded with a zero to whole pairs.
View<const bf16> round_rows(View<const float> x, Arena::Scope& scope, const Compute& compute) {
  const Index padded = round_up(x.cols, 2);
  bf16* half = scope.take<bf16>(x.rows * padded);
  const Kernels& k = kernels(compute);
  parallel_for(x.rows >= 16 ? compute.threads : 1, x.rows, [&](Index r) {
    k.to_bf16(x.row(r), half + r * padded, x.cols);
    if (padded > x.cols) half[r * padded + x.cols] = {};
  });
  return {half, x.rows, padded};
}

// The panels [first, last) of y for its rows, which are rows [row, row + y.rows) of x. Calls product(panel,
// row, rows, first depth, depth, y, ldy, start). The last panel of a weight whose `out` is no multiple of 32
// goes through a block of its own, because a product writes whole panels.
template <class Product>
void run_panels(Index first, Index last, Index row, Index depth, Index step, View<float> y,
                const Product& product) {
  Arena::Scope scope(scratch());
  const Index whole = y.cols / kPanel;
  const View<float> rest = last > whole ? scope.rows(y.rows, kPanel) : View<float>();
  for (Index p = first; p < last; ++p) {
    const View<float> place = p < whole ? y.slice_cols(p * kPanel, kPanel) : rest;
    for (Index k = 0; k == 0 || k < depth; k += step)
      product(p, row, y.rows, k, std::min(step, depth - k), place.data, place.stride,
              k == 0 ? Start::zero : Start::present);
  }
  const auto cols = static_cast<std::size_t>(y.cols - whole * kPanel);
  for (Index r = 0; r < rest.rows; ++r)
    std::memcpy(y.row(r) + whole * kPanel, rest.row(r), cols * sizeof(float));
}

// Tasks are blocks of rows times contiguous ranges of panels, so that a single row streams the weight; a few
// ranges per thread even the load.
template <class Product>
void run_all(Index depth, Index step, View<float> y, int threads, const Product& product) {
  const Index panels = ceil_div(y.cols, kPanel),
              blocks = ceil_div(y.rows, std::max(kBlockRows, kBlockElements / std::max<Index>(1, depth)));
  const Index ranges = std::min<Index>(panels, threads > 1 ? Index{threads} * 8 : 1);
  parallel_for(threads, blocks * ranges, [&](Index task) {
    const Index block = task / ranges, range = task % ranges;
    const Index row = y.rows * block / blocks, next = y.rows * (block + 1) / blocks;
    run_panels(panels * range / ranges, panels * (range + 1) / ranges, row, depth, step,
               y.slice_rows(row, next - row), product);
  });
}

}  // namespace

Linear::Linear(const Tensor& weight) {
  if (weight.shape.size() != 2)
    fail("a weight must be a matrix [out, in], found shape ", to_string(weight.shape));
  bytes_of(weight.dtype);  // refuses types without kernels
  weight_ = pack(weight, weight.dtype == DType::bf16 ? DType::bf16 : DType::f32);
  out_ = weight.shape[0];
  in_ = weight.shape[1];
}

void Linear::run(View<const float> x, View<float> y, const Compute& compute) const {
  assert(x.cols == in_ && y.cols == out_ && x.rows == y.rows);
  const Kernels& k = kernels(compute);
  // A table's product of one packed panel, bound to its operands.
  const auto run = [&](auto packed, auto from, const auto* w, Index stride, Index depth, Index step) {
    run_all(
        depth, step, y, compute.threads,
        [&](Index panel, Index row, Index rows, Index at, Index count, float* to, Index ldy, Start start) {
          packed(rows, count, from.row(row) + at, from.stride, w + (panel * stride + at) * kPanel, to, ldy,
                 start);
        });
  };
  if (weight_.dtype == DType::f32)
    return run(k.packed_f32, x, static_cast<const float*>(weight_.data), in_, in_, kDepthF32);
  const auto* w = static_cast<const bf16*>(weight_.data);
  const Index padded = round_up(in_, 2);
  if (compute.numerics == Numerics::exact) return run(k.packed_bf16, x, w, padded, in_, kDepthBf16);
  Arena::Scope scope(scratch());
  run(k.packed_bf16_fast, round_rows(x, scope, compute), w, padded, padded, kDepthBf16);
}

void Linear::row(Index out, float* y) const {
  const Index panel = out / kPanel, column = out % kPanel;
  if (weight_.dtype == DType::f32) {
    const float* w = static_cast<const float*>(weight_.data) + panel * in_ * kPanel + column;
    for (Index i = 0; i < in_; ++i) y[i] = w[i * kPanel];
    return;
  }
  const bf16* w = static_cast<const bf16*>(weight_.data) + panel * round_up(in_, 2) * kPanel + 2 * column;
  for (Index i = 0; i < in_; ++i) y[i] = to_float(w[i / 2 * 2 * kPanel + i % 2]);
}

}  // namespace plait
