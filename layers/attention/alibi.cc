// score: alibi. s_ij := s_ij - slope_h (i - j)
#include "layers/attention/stages.h"

namespace plait {
namespace {

class AlibiScore final : public Score {
 public:
  explicit AlibiScore(const Alibi& settings) : slopes_(settings.slopes.begin(), settings.slopes.end()) {}
  void apply(const QueryRow& row, Index first, Index count, const double*, float* s,
             const Kernels&) const override {
    const float slope = slopes_[static_cast<std::size_t>(row.head)];
    // The greatest distance whose f32 is exact is 2^24; beyond it a bias rounds like any other logit.
    for (Index i = 0; i < count; ++i) s[i] -= slope * static_cast<float>(row.position - first - i);
  }

 private:
  std::vector<float> slopes_;  // [num_heads]
};

}  // namespace

std::unique_ptr<Score> make_alibi(const Alibi& settings) { return std::make_unique<AlibiScore>(settings); }

}  // namespace plait
