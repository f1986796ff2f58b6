// normaliser: cog_attention. w_j = sgn(s_j) softmax(|s|)_j
#include <algorithm>
#include <cmath>

#include "layers/attention/stages.h"

namespace plait {
namespace {

class CogNormaliser final : public Normaliser {
 public:
  bool tracks_maximum() const override { return true; }
  float reference(const float* s, float*, Index count, const Kernels&) const override {
    float greatest = 0;
    for (Index i = 0; i < count; ++i) greatest = std::max(greatest, std::fabs(s[i]));
    return greatest;
  }
  void numerators(const QueryRow&, float maximum, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    for (Index i = 0; i < count; ++i) p[i] = std::fabs(s[i]);
    k.exp_minus(p, maximum, p, count);
  }
  void settle(const float* s, float* p, Index count, const Kernels&) const override {
    for (Index i = 0; i < count; ++i) p[i] = s[i] == 0 ? 0.0f : std::copysign(p[i], s[i]);
  }
};

}  // namespace

std::unique_ptr<Normaliser> make_cog_attention() { return std::make_unique<CogNormaliser>(); }

}  // namespace plait
