// score: sin_softmax. s := sin s, times a factor
#include <algorithm>

#include "layers/attention/stages.h"
#include "runtime/base/arena.h"

namespace plait {
namespace {

class SinSoftmaxScore final : public Score {
 public:
  explicit SinSoftmaxScore(double scale_after) : scale_after_(static_cast<float>(scale_after)) {}
  void apply(const QueryRow&, Index, Index count, const double*, float* s, const Kernels& k) const override {
    Arena::Scope scope(scratch());
    double* angles = scope.take<double>(count);
    float* cosines = scope.take(count);
    std::copy_n(s, count, angles);
    k.sin_cos(angles, s, cosines, count);
    if (scale_after_ != 1) k.scale(s, scale_after_, s, count);
  }

 private:
  float scale_after_;
};

}  // namespace

std::unique_ptr<Score> make_sin_softmax(const SinSoftmax& settings) {
  return std::make_unique<SinSoftmaxScore>(settings.scale_after);
}

}  // namespace plait
