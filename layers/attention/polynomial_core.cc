#include "layers/attention/polynomial_core.h"

#include "runtime/base/arena.h"

namespace plait {

void raise(Index degree, float* s, Index count, const Kernels& k) {
  if (degree == 2 || degree == 4) k.square(s, s, count);
  if (degree == 4) k.square(s, s, count);
  if (degree != 3) return;
  Arena::Scope scope(scratch());
  float* square = scope.take(count);
  k.square(s, square, count);
  k.multiply(square, s, s, count);
}

SiteSpec row_state_site(Index heads) {
  return {Site::state,
          {Operator::zero, Operator::freeze, Operator::no_write, Operator::delete_write, Operator::no_read},
          heads};
}

PolynomialScale::PolynomialScale(const PolynomialAttentionSettings& settings)
    : denominator_(settings.denominator),
      mode_(settings.scale_mode),
      eps_(static_cast<float>(settings.eps)),
      c_(settings.c.begin(), settings.c.end()) {
  c_.resize(static_cast<std::size_t>(settings.projection.num_heads), c_[0]);
}

float PolynomialScale::factor(Index position, Index head, float mass, const Kernels& k) const {
  using Settings = PolynomialAttentionSettings;
  if (denominator_ == Settings::Denominator::none) {
    if (mode_ == Settings::ScaleMode::fixed) return c_[static_cast<std::size_t>(head)];
    const auto count = static_cast<float>(position + 1);
    float root = 0;
    k.sqrt(&count, &root, 1);
    return 1.0f / root;
  }
  const float total = mass + (denominator_ == Settings::Denominator::sum ? eps_ : 1.0f);
  return total == 0 ? 0.0f : 1.0f / total;
}

}  // namespace plait
