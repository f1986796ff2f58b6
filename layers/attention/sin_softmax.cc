// score: sin_softmax. s := c sin s
#include <algorithm>

#include "layers/attention/stages.h"
#include "runtime/base/arena.h"

namespace plait {
namespace {

class SinSoftmaxScore final : public Score {
 public:
  explicit SinSoftmaxScore(const SinSoftmax& settings) : after_(static_cast<float>(settings.scale_after)) {}

  void apply(const QueryRow&, Index, Index count, const double*, float* s, const Kernels& k) const override {
    Arena::Scope scope(scratch());
    double* angles = scope.take<double>(count);
    float* cosines = scope.take(count);
    std::copy_n(s, count, angles);
    k.sin_cos(angles, s, cosines, count);
    if (after_ != 1) k.scale(s, after_, s, count);
  }

 private:
  float after_;
};

}  // namespace

std::unique_ptr<Score> make_sin_softmax(const SinSoftmax& settings) {
  return std::make_unique<SinSoftmaxScore>(settings);
}

}  // namespace plait
