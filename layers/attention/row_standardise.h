// score: row_standardise. s := (s - mean) / sqrt(var + eps), over the keys a row sees. Mean and variance are
// walks over the keys of their own, without values.
#pragma once

#include "layers/attention/stages.h"

namespace plait {

// A walk that sums a function of the logits before the score that wants moments.
class MomentRule : public KeyRule {
 public:
  explicit MomentRule(const StagedRule& rule) : rule_(rule), first_(*rule.standardised()->moments()) {}

  bool tracks_maximum() const final { return false; }
  bool start(const QueryRow&, float&, float&) const final { return false; }
  void logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
              const Kernels& k) const final {
    rule_.logits_before(row, first, count, side, s, k);
  }

 protected:
  float mean(const QueryRow& row) const { return row.numbers[first_ + row.head]; }
  const StagedRule& rule_;

 private:
  Index first_;
};

// -> row.out [1], the mean
class MeanRule final : public MomentRule {
 public:
  using MomentRule::MomentRule;
  void numerators(const QueryRow& row, float, const float* s, float* p, Index count,
                  const Kernels& k) const override;
  void finish(const QueryRow& row, const RowSums& sums, Index value_width, const Kernels& k) const override;
};

// -> row.out [1], what the score makes of the sum of squared distances
class SpreadRule final : public MomentRule {
 public:
  using MomentRule::MomentRule;
  void numerators(const QueryRow& row, float, const float* s, float* p, Index count,
                  const Kernels& k) const override;
  void finish(const QueryRow& row, const RowSums& sums, Index value_width, const Kernels& k) const override;
};

}  // namespace plait
