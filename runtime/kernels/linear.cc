#include "runtime/kernels/linear.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/arena.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"

namespace plait {
namespace {

// A slice of a panel this deep (64 kB) stays in the cache while all rows pass over it; the chain goes on in
// the next.
constexpr Index kDepthF32 = 512, kDepthBf16 = 1024;

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

// Panels go out in contiguous ranges, so that a single row streams the weight; a few ranges per thread even
// the load.
template <class Body>
void for_each_panel(Index panels, int threads, Body&& body) {
  const Index ranges = std::min<Index>(panels, threads > 1 ? Index{threads} * 8 : 1);
  parallel_for(threads, ranges, [&](Index range) {
    for (Index p = panels * range / ranges; p < panels * (range + 1) / ranges; ++p) body(p);
  });
}

// Runs product(first depth, depth, y, ldy, start) over the depth of one panel. The last panel of a weight
// whose `out` is no multiple of 32 goes through a block of its own, because a product writes whole panels.
template <class Product>
void one_panel(Index panel, Index depth, Index step, View<float> y, Product&& product) {
  Arena::Scope scope(scratch());
  const Index first = panel * kPanel, cols = std::min(kPanel, y.cols - first);
  const bool whole = cols == kPanel;
  const View<float> place = whole ? y.slice_cols(first, kPanel) : scope.rows(y.rows, kPanel);
  for (Index k = 0; k < depth; k += step)
    product(k, std::min(step, depth - k), place.data, place.stride, k == 0 ? Start::zero : Start::present);
  if (whole) return;
  for (Index r = 0; r < y.rows; ++r)
    std::memcpy(y.row(r) + first, place.row(r), static_cast<std::size_t>(cols) * sizeof(float));
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
  const Kernels& k = kernels(compute);
  const Index panels = ceil_div(out_, kPanel), rows = x.rows;
  if (rows == 0) return;
  if (weight_.dtype == DType::f32) {
    const auto* w = static_cast<const float*>(weight_.data);
    for_each_panel(panels, compute.threads, [&](Index p) {
      one_panel(p, in_, kDepthF32, y, [&](Index at, Index depth, float* to, Index ldy, Start start) {
        k.packed_f32(rows, depth, x.data + at, x.stride, w + (p * in_ + at) * kPanel, to, ldy, start);
      });
    });
    return;
  }
  const auto* w = static_cast<const bf16*>(weight_.data);
  const Index padded = round_up(in_, 2);
  if (compute.numerics == Numerics::exact) {
    for_each_panel(panels, compute.threads, [&](Index p) {
      one_panel(p, in_, kDepthBf16, y, [&](Index at, Index depth, float* to, Index ldy, Start start) {
        k.packed_bf16(rows, depth, x.data + at, x.stride, w + (p * padded + at) * kPanel, to, ldy, start);
      });
    });
    return;
  }
  Arena::Scope scope(scratch());
  const View<const bf16> half = round_rows(x, scope, compute);
  for_each_panel(panels, compute.threads, [&](Index p) {
    one_panel(p, padded, kDepthBf16, y, [&](Index at, Index depth, float* to, Index ldy, Start start) {
      k.packed_bf16_fast(rows, depth, half.data + at, half.stride, w + (p * padded + at) * kPanel, to, ldy,
                         start);
    });
  });
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
