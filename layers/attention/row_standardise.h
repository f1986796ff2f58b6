// score: row_standardise. s := (s - mean) / sqrt(var + eps), over the keys a row sees. Mean and variance are
// a walk over the keys of its own, without values.
#pragma once

#include "layers/attention/stages.h"

namespace plait {

// -> row.out [2]: the mean of the logits before the score that wants moments, and what it makes of the sum of
// their squared distances from it. Both come from sums in f64, in which squares of f32 logits are exact.
class MomentsRule final : public KeyRule {
 public:
  explicit MomentsRule(const StagedRule& rule) : rule_(rule) {}

  bool gathers_moments() const override { return true; }
  bool tracks_maximum() const override { return false; }
  bool start(const QueryRow&, float&, float&) const override { return false; }
  void logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
              const Kernels& k) const override {
    rule_.logits_before(row, first, count, side, s, k);
  }
  void numerators(const QueryRow&, float, const float*, float*, Index, const Kernels&) const override {}
  void finish(const QueryRow& row, const RowSums& sums, Index value_width, const Kernels& k) const override;

 private:
  const StagedRule& rule_;
};

}  // namespace plait
