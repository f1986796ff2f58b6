// normaliser: stick_breaking. w_ij = sigmoid(s_ij) prod over the visible keys behind j of sigmoid(-s_il).
// References are sums of softplus(s) = -ln sigmoid(-s): what the stick loses to a block of keys.
#include <limits>

#include "layers/attention/stages.h"

namespace plait {
namespace {

class StickBreakingNormaliser final : public Normaliser {
 public:
  bool tracks_maximum() const override { return true; }
  bool references_add() const override { return true; }

  // What each key takes, left for `numerators`, and their sum.
  float reference(const float* s, float* losses, Index count, const Kernels& k) const override {
    k.softplus(s, losses, count);
    return k.sum(losses, count);
  }

  // ln sigmoid(s_j) less what the keys behind j take, with ln sigmoid(s) = s - softplus(s)
  void numerators(const QueryRow&, float behind, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    for (Index i = count - 1; i >= 0; --i) {
      const float loss = p[i];
      p[i] = (s[i] - loss) - behind;
      behind += loss;
    }
    k.exp(p, p, count);
  }

  float factor(const QueryRow&, float, const Kernels&) const override { return 1; }
};

// A logit of -infinity takes nothing of the stick and leaves it whole.
class HiddenSelf final : public Score {
 public:
  void apply(const QueryRow& row, Index first, Index count, const double*, float* s,
             const Kernels&) const override {
    if (first <= row.position && row.position < first + count)
      s[row.position - first] = -std::numeric_limits<float>::infinity();
  }
};

}  // namespace

std::unique_ptr<Normaliser> make_stick_breaking() { return std::make_unique<StickBreakingNormaliser>(); }
std::unique_ptr<Score> make_hidden_self() { return std::make_unique<HiddenSelf>(); }

}  // namespace plait
