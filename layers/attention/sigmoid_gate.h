// gate: a factor sigmoid(g) on every column or head of an attention's output, before the output projection
// (arXiv 2505.06708, position G1). Site: gate (one, mean).
#pragma once

#include <optional>
#include <span>

#include "runtime/base/tensor.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/layer.h"

namespace plait {

class SigmoidGate {
 public:
  // No gate.
  SigmoidGate() = default;
  // width: factors per head, value_head_dim or 1. `weight` [num_heads * width, in], or null when the layer
  // computes the gate's logits with its queries.
  // bias [num_heads * width] or null.
  SigmoidGate(Index num_heads, Index width, const Tensor* weight, const Tensor* bias = nullptr);

  // heads [rows, num_heads * value_head_dim] *= sigmoid(logits). x [rows, in]; packed [rows, num_heads *
  // width], used if there is no weight.
  void apply(View<const float> x, View<const float> packed, std::span<const Segment> segments,
             View<float> heads, const Compute& compute) const;

 private:
  void apply_row(const Segment& segment, float* factors, float* heads, Index head_width,
                 const Kernels& k) const;

  Index num_heads_ = 0, width_ = 0;
  std::optional<Linear> weight_;
  std::vector<float> bias_;
};

}  // namespace plait
