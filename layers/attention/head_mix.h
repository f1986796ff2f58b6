// Readouts that make an output head of several query heads, behind the walk over the keys.
#pragma once

#include <memory>
#include <span>

#include "layers/reference/softmax_attention.h"
#include "runtime/base/tensor.h"
#include "runtime/run/layer.h"

namespace plait {

class HeadMix {
 public:
  virtual ~HeadMix() = default;
  // walked [rows, num_heads * out_width of the readout], overwritten; x [rows, width] -> heads [rows,
  // heads_out() * value_head_dim]
  virtual void run(View<const float> x, std::span<const Segment> segments, View<float> walked,
                   View<float> heads, const Compute& compute) const = 0;
};

// Null for a readout that leaves the heads alone.
std::unique_ptr<HeadMix> make_head_mix(const SoftmaxAttentionSettings& settings,
                                       const Parameters& parameters);

std::unique_ptr<HeadMix> make_differential_attention(const DifferentialAttention& option,
                                                     const SoftmaxAttentionSettings& settings,
                                                     const Parameters& parameters);
std::unique_ptr<HeadMix> make_bayes_softmax(const SoftmaxAttentionSettings& settings,
                                            const Parameters& parameters);

}  // namespace plait
