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
  constexpr Index kBlock = 16;
  const Kernels& k = kernels(compute);
  parallel_for(compute.threads, ceil_div(x.rows, kBlock), [&](Index b) {
    const Index first = b * kBlock;
    run_block(x, history, first, y.slice_rows(first, std::min(kBlock, x.rows - first)), mode, k);
  });
}

void Convolution::run_block(View<const float> x, std::span<const float* const> history, Index first,
                            View<float> y, Mode mode, const Kernels& k) const {
  constexpr Index kStrip = 512;  // channels whose taps stay in the first cache while the rows pass
  Arena::Scope scope(scratch());
  const float** rows = scope.take<const float*>(kernel_);
  for (Index c = 0; c < channels_; c += kStrip) {
    const Index width = std::min(kStrip, channels_ - c);
    for (Index r = 0; r < y.rows; ++r) {
      float* out = y.row(r) + c;
      if (mode == Mode::identity || mode == Mode::bypass) {
        std::copy_n(x.row(first + r) + c, width, out);
      } else {
        for (Index w = 0; w < kernel_; ++w) {
          const Index source = first + r - (kernel_ - 1) + w;
          const float* row = source >= 0 ? x.row(source) : history[static_cast<std::size_t>(first + r + w)];
          const bool used = row && (mode == Mode::normal || w == kernel_ - 1);
          rows[w] = used ? row + c : nullptr;
        }
        k.fir(kernel_, rows, taps_.data() + c, channels_, bias_.empty() ? nullptr : bias_.data() + c, out,
              width);
      }
      if (activation_ == Activation::silu && mode != Mode::bypass) k.silu(out, out, width);
    }
  }
}

}  // namespace plait
