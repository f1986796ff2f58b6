// score: logit_softcap. s := cap tanh(s / cap)
#include "layers/attention/stages.h"

namespace plait {
namespace {

class SoftcapScore final : public Score {
 public:
  explicit SoftcapScore(double cap) : cap_(static_cast<float>(cap)), inverse_(static_cast<float>(1 / cap)) {}
  void apply(const QueryRow&, Index, Index count, const double*, float* s, const Kernels& k) const override {
    k.scale(s, inverse_, s, count);
    k.tanh(s, s, count);
    k.scale(s, cap_, s, count);
  }

 private:
  float cap_, inverse_;
};

}  // namespace

std::unique_ptr<Score> make_logit_softcap(const LogitSoftcap& settings) {
  return std::make_unique<SoftcapScore>(settings.cap);
}

}  // namespace plait
