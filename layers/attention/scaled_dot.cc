// score: scaled_dot. s = scale * q.k
#include "layers/attention/stages.h"

namespace plait {
namespace {

class ScaledDot final : public Score {
 public:
  explicit ScaledDot(float scale) : scale_(scale) {}
  void apply(const QueryRow&, Index, Index count, const double*, float* s, const Kernels& k) const override {
    k.scale(s, scale_, s, count);
  }

 private:
  float scale_;
};

}  // namespace

std::unique_ptr<Score> make_scaled_dot(const SoftmaxAttentionSettings& settings, const Parameters&) {
  return std::make_unique<ScaledDot>(static_cast<float>(settings.scale));
}

}  // namespace plait
