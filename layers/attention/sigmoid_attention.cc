// normaliser: sigmoid_attention. w_ij = sigmoid(e^t s_ij + b) times a factor of the row; no denominator
#include <cmath>

#include "layers/attention/stages.h"

namespace plait {
namespace {

class SigmoidNormaliser final : public Normaliser {
 public:
  explicit SigmoidNormaliser(const SigmoidAttention& settings)
      : s_(settings),
        slope_(static_cast<float>(std::exp(settings.t))),
        bias_(static_cast<float>(settings.bias)) {}

  void numerators(const QueryRow& row, float, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    float bias = bias_;
    if (s_.bias_mode == SigmoidAttention::Bias::neg_log_ni) {
      bias = static_cast<float>(row.visible_count());
      k.log(&bias, &bias, 1);
      bias = -bias;
    }
    k.scale(s, slope_, p, count);
    k.add_scalar(p, bias, p, count);
    k.sigmoid(p, p, count);
  }

  float factor(const QueryRow& row, float, const Kernels&) const override {
    const auto n = static_cast<float>(std::max<Index>(1, row.visible_count()));
    switch (s_.row_scale) {
      case SigmoidAttention::RowScale::none:
        return 1;
      case SigmoidAttention::RowScale::inv_sqrt_n:
        return 1 / std::sqrt(n);
      case SigmoidAttention::RowScale::inv_n:
        return 1 / n;
    }
    return 1;
  }

 private:
  SigmoidAttention s_;
  float slope_, bias_;
};

}  // namespace

std::unique_ptr<Normaliser> make_sigmoid_attention(const SigmoidAttention& settings) {
  return std::make_unique<SigmoidNormaliser>(settings);
}

}  // namespace plait
