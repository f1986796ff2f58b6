// readout: bayes_softmax. One softmax over heads and keys: y = sum_h softmax_h(lse_h + c_h) attn_h
#include <algorithm>
#include <limits>

#include "layers/attention/head_mix.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

class BayesMix final : public HeadMix {
 public:
  BayesMix(const SoftmaxAttentionSettings& settings, const Parameters& parameters)
      : width_(settings.projection.value_head_dim), bias_(to_float(parameters.tensor("head_bias"))) {}

  void run(View<const float>, std::span<const Segment> segments, View<float> walked, View<float> heads,
           const Compute& compute) const override {
    for_each_block(segments, [&](Index first, Index rows) {
      for_each_row(first, rows, compute.threads,
                   [&](Index r) { mix(walked.row(r), heads.row(r), kernels(compute)); });
    });
  }

 private:
  // walked [num_heads][width + 1], the last column ln of the mass
  void mix(const float* walked, float* out, const Kernels& k) const {
    const auto count = static_cast<Index>(bias_.size());
    Arena::Scope scope(scratch());
    float* weights = scope.take(count);
    for (Index h = 0; h < count; ++h)
      weights[h] = walked[h * (width_ + 1) + width_] + bias_[static_cast<std::size_t>(h)];
    std::fill_n(out, width_, 0.0f);
    const float greatest = k.maximum(weights, count);
    if (greatest == -std::numeric_limits<float>::infinity()) return;  // no head saw a key
    k.exp_minus(weights, greatest, weights, count);
    k.scale(weights, 1 / k.sum(weights, count), weights, count);
    for (Index h = 0; h < count; ++h) k.add_scaled(weights[h], walked + h * (width_ + 1), out, width_);
  }

  Index width_;
  std::vector<float> bias_;  // [num_heads]
};

}  // namespace

std::unique_ptr<HeadMix> make_bayes_softmax(const SoftmaxAttentionSettings& settings,
                                            const Parameters& parameters) {
  return std::make_unique<BayesMix>(settings, parameters);
}

}  // namespace plait
