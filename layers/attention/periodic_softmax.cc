// normaliser: periodic_softmax. w_ij = f(s_ij) / sum f, f a periodic function
#include <algorithm>
#include <cmath>
#include <numbers>

#include "layers/attention/stages.h"
#include "runtime/base/arena.h"

namespace plait {
namespace {

class PeriodicNormaliser final : public Normaliser {
  using Function = PeriodicSoftmax::Function;

 public:
  explicit PeriodicNormaliser(const PeriodicSoftmax& settings)
      : function_(settings.function), eps_(static_cast<float>(settings.eps)) {}

  void numerators(const QueryRow&, float, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    Arena::Scope scope(scratch());
    double* angles = scope.take<double>(count);
    float* other = scope.take(count);
    const double slope = function_ == Function::one_plus_sin10 ? 10 : 1;
    const double shift = function_ == Function::sin2_shifted ? std::numbers::pi / 4 : 0;
    for (Index i = 0; i < count; ++i) angles[i] = slope * static_cast<double>(s[i]) + shift;
    if (function_ == Function::cos) return k.sin_cos(angles, other, p, count);
    k.sin_cos(angles, p, other, count);
    if (function_ == Function::one_plus_sin10) k.add_scalar(p, 1, p, count);
    if (function_ == Function::sin2 || function_ == Function::sin2_shifted) k.square(p, p, count);
    if (function_ == Function::siren)
      for (Index i = 0; i < count; ++i) p[i] = (1 + p[i]) / (2 * std::max(1 - p[i], 1e-6f));
  }

  float factor(const QueryRow&, float mass, const Kernels&) const override {
    return 1 / (mass + std::copysign(eps_, mass));
  }

 private:
  Function function_;
  float eps_;
};

}  // namespace

std::unique_ptr<Normaliser> make_periodic_softmax(const PeriodicSoftmax& settings) {
  return std::make_unique<PeriodicNormaliser>(settings);
}

}  // namespace plait
