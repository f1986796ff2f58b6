// score: scalable_softmax. s := (a_h ln n + b_h) s, n = number of keys the row sees
#include "layers/attention/stages.h"

namespace plait {
namespace {

class ScalableSoftmaxScore final : public Score {
 public:
  ScalableSoftmaxScore(const ScalableSoftmax& settings, const Parameters& parameters)
      : undo_(static_cast<float>(settings.undo)), scale_(to_float(parameters.tensor("ssmax_scale"))) {
    if (settings.bias) bias_ = to_float(parameters.tensor("ssmax_bias"));
  }

  void apply(const QueryRow& row, Index, Index count, const double*, float* s,
             const Kernels& k) const override {
    const auto h = static_cast<std::size_t>(row.head);
    auto log = static_cast<float>(row.visible_count());
    k.log(&log, &log, 1);
    k.scale(s, undo_ * (scale_[h] * log + (bias_.empty() ? 0.0f : bias_[h])), s, count);
  }

 private:
  float undo_;
  std::vector<float> scale_, bias_;  // [num_heads]
};

}  // namespace

std::unique_ptr<Score> make_scalable_softmax(const ScalableSoftmax& settings, StageParts& parts) {
  return std::make_unique<ScalableSoftmaxScore>(settings, parts.parameters);
}

}  // namespace plait
