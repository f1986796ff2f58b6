// score: sin_softmax. s := sin s
#include <algorithm>

#include "layers/attention/stages.h"
#include "runtime/base/arena.h"

namespace plait {
namespace {

class SinSoftmaxScore final : public Score {
 public:
  void apply(const QueryRow&, Index, Index count, const double*, float* s, const Kernels& k) const override {
    Arena::Scope scope(scratch());
    double* angles = scope.take<double>(count);
    float* cosines = scope.take(count);
    std::copy_n(s, count, angles);
    k.sin_cos(angles, s, cosines, count);
  }
};

}  // namespace

std::unique_ptr<Score> make_sin_softmax() { return std::make_unique<SinSoftmaxScore>(); }

}  // namespace plait
