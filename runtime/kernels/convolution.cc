#include "runtime/kernels/convolution.h"

#include <cassert>

#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"

namespace plait {

Convolution::Convolution(Index kernel, std::span<const float> weight, std::span<const float> bias,
                         Activation activation)
    : kernel_(kernel),
      channels_(static_cast<Index>(weight.size()) / kernel),
      activation_(activation),
      taps_(weight.size()),
      bias_(bias.begin(), bias.end()) {
  assert(kernel >= 1 && channels_ * kernel == static_cast<Index>(weight.size()));
  assert(bias.empty() || static_cast<Index>(bias.size()) == channels_);
  for (Index c = 0; c < channels_; ++c)
    for (Index w = 0; w < kernel_; ++w)
      taps_[static_cast<std::size_t>(w * channels_ + c)] = weight[static_cast<std::size_t>(c * kernel_ + w)];
}

void Convolution::run(View<const float> x, std::span<const float* const> history, View<float> y, Mode mode,
                      const Compute& compute) const {
  assert(x.cols == channels_ && y.cols == channels_ && x.rows == y.rows);
  assert(static_cast<Index>(history.size()) == kernel_ - 1);
  const Index block = 16;
  parallel_for(compute.threads, ceil_div(x.rows, block), [&](Index b) {
    for (Index r = b * block; r < std::min(x.rows, (b + 1) * block); ++r)
      run_row(x, history, r, y.row(r), mode, compute);
  });
}

void Convolution::run_row(View<const float> x, std::span<const float* const> history, Index row, float* y,
                          Mode mode, const Compute& compute) const {
  const Kernels& k = kernels(compute);
  if (mode == Mode::identity) {
    std::copy_n(x.row(row), channels_, y);
  } else {
    Arena::Scope scope(scratch());
    const float** rows = scope.take<const float*>(kernel_);
    for (Index w = 0; w < kernel_; ++w) {
      const Index source = row - (kernel_ - 1) + w;
      rows[w] = source >= 0 ? x.row(source) : history[static_cast<std::size_t>(row + w)];
      if (mode == Mode::current_tap && w < kernel_ - 1) rows[w] = nullptr;
    }
    k.fir(kernel_, rows, taps_.data(), bias_.empty() ? nullptr : bias_.data(), y, channels_);
  }
  if (activation_ == Activation::silu) k.silu(y, y, channels_);
}

}  // namespace plait
