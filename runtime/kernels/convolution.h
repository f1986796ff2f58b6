// Depthwise causal convolution over time, the short convolution of delta, gated and state-space layers:
//   y_t[c] = activation(bias[c] + sum_{w < kernel} weight[c, w] * x_{t - (kernel - 1) + w}[c])
// (Dao and Gu, Mamba; the last tap meets the current token). An element is one chain of fused multiply-adds,
// w ascending; rows before the sequence start and rows that were skipped are left out of the chain.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "runtime/base/numerics.h"
#include "runtime/base/view.h"

namespace plait {

struct Kernels;

class Convolution {
 public:
  enum class Activation { none, silu };
  enum class Mode {
    normal,
    identity,     // y = activation(x): neither taps nor bias
    bypass,       // y = x
    current_tap,  // only the tap on the current token; bias and activation stay
  };

  Convolution() = default;
  // weight [channels, kernel], bias [channels] or empty. Both are copied.
  Convolution(Index kernel, std::span<const float> weight, std::span<const float> bias,
              Activation activation);

  Index kernel() const { return kernel_; }  // 0 when default-constructed
  Index channels() const { return channels_; }

  // Consecutive rows of one sequence. x, y [rows, channels]; they must not overlap. history[i] [channels] is
  // the input row kernel - 1 - i positions before x's first one, null if there is none; size kernel - 1.
  void run(View<const float> x, std::span<const float* const> history, View<float> y, Mode mode,
           const Compute& compute) const;

 private:
  // Rows [first, first + y.rows) of x.
  void run_block(View<const float> x, std::span<const float* const> history, Index first, View<float> y,
                 Mode mode, const Kernels& k) const;

  Index kernel_ = 0, channels_ = 0;
  Activation activation_ = Activation::none;
  std::vector<float> taps_;  // [kernel][channels]
  std::vector<float> bias_;
};

// Fills `history` (size kernel - 1) for rows that begin at `position` from an append-only log of input rows:
// anything with present(), ascending ranges of existing positions, and row(position), which is null where
// nothing is held.
template <class Rows>
void gather_history(const Rows& log, Index position, std::span<const float*> history) {
  const Index count = static_cast<Index>(history.size());
  std::fill(history.begin(), history.end(), nullptr);
  for (const auto& range : log.present())
    for (Index p = std::max<Index>(range.begin, position - count); p < std::min<Index>(range.end, position);
         ++p)
      history[static_cast<std::size_t>(p - (position - count))] = log.row(p);
}

}  // namespace plait
