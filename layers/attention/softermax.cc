// normaliser: softermax. Numerators 2^(x - m) with a whole m, so that rescaling is exact.
#include <cmath>
#include <numbers>

#include "layers/attention/stages.h"

namespace plait {
namespace {

class SoftermaxNormaliser final : public Normaliser {
 public:
  // Logits times log2(e) first are what makes 2^x the natural power.
  explicit SoftermaxNormaliser(bool natural)
      : to_binary_(natural ? std::numbers::log2e_v<float> : 1.0f), to_natural_(std::numbers::ln2_v<float>) {}

  bool tracks_maximum() const override { return true; }
  float reference(const float* s, float*, Index count, const Kernels& k) const override {
    return std::ceil(to_binary_ * k.maximum(s, count));
  }
  float shrink(float before, float after, const Kernels&) const override {
    const float steps = before - after;  // whole, at most 0
    return steps < -200 ? 0.0f : std::ldexp(1.0f, static_cast<int>(steps));
  }
  void numerators(const QueryRow&, float maximum, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    for (Index i = 0; i < count; ++i) p[i] = (to_binary_ * s[i] - maximum) * to_natural_;
    k.exp(p, p, count);
  }

 private:
  float to_binary_, to_natural_;
};

}  // namespace

std::unique_ptr<Normaliser> make_softermax(const Softermax& settings) {
  return std::make_unique<SoftermaxNormaliser>(settings.natural);
}

}  // namespace plait
