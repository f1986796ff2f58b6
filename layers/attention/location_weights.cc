// normaliser: linear_unnormalised, erf_unnormalised, softplus_normalised: what single-location regression
// compares softmax with.
#include <numbers>

#include "layers/attention/stages.h"

namespace plait {
namespace {

class LocationNormaliser final : public Normaliser {
  using Function = LocationWeights::Function;

 public:
  explicit LocationNormaliser(const LocationWeights& settings)
      : function_(settings.function), shift_(static_cast<float>(settings.shift)) {}

  void numerators(const QueryRow&, float, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    switch (function_) {
      case Function::linear:
        return k.add_scalar(s, 1, p, count);
      case Function::softplus:
        return k.softplus(s, p, count);
      case Function::erf:  // 1 + erf(x) = 2 Phi(sqrt 2 x)
        k.add_scalar(s, shift_, p, count);
        k.scale(p, std::numbers::sqrt2_v<float>, p, count);
        k.normal_cdf(p, p, count);
        return k.scale(p, 2, p, count);
    }
  }

  float factor(const QueryRow& row, float mass, const Kernels& k) const override {
    return function_ == Function::softplus ? Normaliser::factor(row, mass, k) : 1.0f;
  }

 private:
  Function function_;
  float shift_;
};

}  // namespace

std::unique_ptr<Normaliser> make_location_weights(const LocationWeights& settings) {
  return std::make_unique<LocationNormaliser>(settings);
}

}  // namespace plait
