// normaliser: taylor_softmax. w_ij = f(s_ij) / sum f, f the Taylor polynomial of exp of an even order
#include "layers/attention/stages.h"

namespace plait {
namespace {

class TaylorNormaliser final : public Normaliser {
 public:
  explicit TaylorNormaliser(Index order) : order_(order) {}

  // Horner: 1 + s (1 + s/2 (1 + s/3 (..)))
  void numerators(const QueryRow&, float, const float* s, float* p, Index count,
                  const Kernels&) const override {
    for (Index j = 0; j < count; ++j) {
      float value = 1;
      for (Index i = order_; i > 0; --i) value = 1.0f + s[j] / static_cast<float>(i) * value;
      p[j] = value;
    }
  }

 private:
  Index order_;
};

}  // namespace

std::unique_ptr<Normaliser> make_taylor_softmax(const TaylorSoftmax& settings) {
  return std::make_unique<TaylorNormaliser>(settings.order);
}

}  // namespace plait
