// score: scaled_dot, integral_attention and the fixed form of focal_attention. A factor on every logit.
#include "layers/attention/stages.h"

namespace plait {
namespace {

class ScaledDotScore final : public Score {
 public:
  explicit ScaledDotScore(float scale) : scale_(scale) {}
  void apply(const QueryRow&, Index, Index count, const double*, float* s, const Kernels& k) const override {
    k.scale(s, scale_, s, count);
  }

 private:
  float scale_;
};

}  // namespace

std::unique_ptr<Score> make_scaled_dot(double scale) {
  return std::make_unique<ScaledDotScore>(static_cast<float>(scale));
}

}  // namespace plait
