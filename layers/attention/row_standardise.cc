#include "layers/attention/row_standardise.h"

#include <algorithm>
#include <cmath>

namespace plait {
namespace {

class Standardised final : public Score {
 public:
  Standardised(const RowStandardise& settings, StageParts& parts)
      : heads_(parts.settings.projection.num_heads),
        first_(parts.take_numbers(2 * heads_)),
        eps_(static_cast<float>(settings.eps)),
        after_(static_cast<float>(settings.scale_after)) {}

  std::optional<Index> moments() const override { return first_; }
  // One key has no deviation; its logit becomes 0.
  float spread(float squares, Index count) const override {
    return count < 2 ? 0.0f : after_ / std::sqrt(squares / static_cast<float>(count - 1) + eps_);
  }

  void apply(const QueryRow& row, Index, Index count, const double*, float* s,
             const Kernels& k) const override {
    k.add_scalar(s, -row.numbers[first_ + row.head], s, count);
    k.scale(s, row.numbers[first_ + heads_ + row.head], s, count);
  }

 private:
  Index heads_, first_;
  float eps_, after_;
};

}  // namespace

std::unique_ptr<Score> make_row_standardise(const RowStandardise& settings, StageParts& parts) {
  return std::make_unique<Standardised>(settings, parts);
}

void MeanRule::numerators(const QueryRow&, float, const float* s, float* p, Index count,
                          const Kernels&) const {
  std::copy_n(s, count, p);
}
void MeanRule::finish(const QueryRow& row, const RowSums& sums, Index, const Kernels&) const {
  *row.out = sums.mass / static_cast<float>(std::max<Index>(1, row.visible_count()));
}

void SpreadRule::numerators(const QueryRow& row, float, const float* s, float* p, Index count,
                            const Kernels& k) const {
  k.add_scalar(s, -mean(row), p, count);
  k.square(p, p, count);
}
void SpreadRule::finish(const QueryRow& row, const RowSums& sums, Index, const Kernels&) const {
  *row.out = rule_.standardised()->spread(sums.mass, row.visible_count());
}

}  // namespace plait
