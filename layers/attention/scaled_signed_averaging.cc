// score: scaled_signed_averaging. s := n sgn(s) log(1 + b |s|)
#include <cmath>

#include "layers/attention/stages.h"
#include "runtime/base/arena.h"

namespace plait {
namespace {

class SignedAveraging final : public Score {
 public:
  explicit SignedAveraging(const ScaledSignedAveraging& settings)
      : b_(static_cast<float>(settings.b)), n_(static_cast<float>(settings.n)) {}

  void apply(const QueryRow&, Index, Index count, const double*, float* s, const Kernels& k) const override {
    Arena::Scope scope(scratch());
    float* size = scope.take(count);
    for (Index i = 0; i < count; ++i) size[i] = b_ * std::fabs(s[i]);
    k.log1p(size, size, count);
    k.scale(size, n_, size, count);
    for (Index i = 0; i < count; ++i) s[i] = std::copysign(size[i], s[i]);
  }

 private:
  float b_, n_;
};

}  // namespace

std::unique_ptr<Score> make_scaled_signed_averaging(const ScaledSignedAveraging& settings) {
  return std::make_unique<SignedAveraging>(settings);
}

}  // namespace plait
