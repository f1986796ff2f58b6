// One log decay per row and head or group of heads, logsigmoid(W x + b) / temperature, and its running sums
// from the first token: polynomial attention's decay, forgetting attention's gate. Site: decay (one,
// constant, zero).
#pragma once

#include <optional>
#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/layer.h"

namespace plait {

class ScalarDecay {
 public:
  // No decay.
  ScalarDecay() = default;
  // weight [heads, in], or null: the decay is that of the bias [heads]. group: query heads that forget alike.
  ScalarDecay(const Tensor* weight, const Tensor& bias, double temperature = 1, Index group = 1);

  Index heads() const { return static_cast<Index>(bias_.size()); }
  SiteSpec site() const {
    return {Site::decay, {Operator::one, Operator::constant, Operator::zero}, heads()};
  }
  // g [rows, heads()], log decays after the edits
  void run(View<const float> x, std::span<const Segment> segments, View<float> g,
           const Compute& compute) const;

 private:
  std::optional<Linear> weight_;
  std::vector<float> bias_;
  float rate_ = 1;
  Index group_ = 1;
};

// Running sums of a segment's log decays, one f64 chain per head that continues from the last cached row:
// decay, sums [rows of the batch, heads]; log: f64, order columns, [heads].
void append_sums(const Segment& segment, View<const float> decay, View<double> sums, Log& log);

}  // namespace plait
