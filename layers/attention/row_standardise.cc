#include "layers/attention/row_standardise.h"

#include <algorithm>
#include <cmath>

namespace plait {
namespace {

class Standardised final : public Score {
 public:
  Standardised(const RowStandardise& settings, StageParts& parts)
      : first_(parts.take_numbers(2 * parts.settings.projection.num_heads)),
        eps_(settings.eps),
        after_(settings.scale_after) {}

  std::optional<Index> moments() const override { return first_; }
  // One key has no deviation; its logit becomes 0.
  double spread(double squares, Index count) const override {
    return count < 2 ? 0 : after_ / std::sqrt(squares / static_cast<double>(count - 1) + eps_);
  }

  void apply(const QueryRow& row, Index, Index count, const double*, float* s,
             const Kernels& k) const override {
    const float* mean_and_factor = row.numbers + first_ + 2 * row.head;
    k.add_scalar(s, -mean_and_factor[0], s, count);
    k.scale(s, mean_and_factor[1], s, count);
  }

 private:
  Index first_;
  double eps_, after_;
};

}  // namespace

std::unique_ptr<Score> make_row_standardise(const RowStandardise& settings, StageParts& parts) {
  return std::make_unique<Standardised>(settings, parts);
}

void MomentsRule::finish(const QueryRow& row, const RowSums& sums, Index, const Kernels&) const {
  const Index keys = row.visible_count();
  const double mean = sums.logits / static_cast<double>(std::max<Index>(1, keys));
  row.out[0] = static_cast<float>(mean);
  row.out[1] = static_cast<float>(
      rule_.standardised()->spread(std::max(0.0, sums.squares - sums.logits * mean), keys));
}

}  // namespace plait
