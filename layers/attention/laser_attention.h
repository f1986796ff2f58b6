// readout: laser_attention. o_c = ln sum_j P_j e^(v_jc) = ln sum_j e^(s_j + v_jc) - ln sum_j e^(s_j).
//
// With M_j the greatest channel of value j, the first sum is over e^(s_j + M_j) e^(v_jc - M_j): attention
// with logits s_j + M_j over cached values e^(v_jc - M_j), which lie in (0, 1] whatever v is, M_j being the
// keys' side column. The second sum is a walk of its own without values, before it: its greatest logit is
// taken from the logits of both, so that their size costs no accuracy.
#pragma once

#include "layers/attention/stages.h"

namespace plait {

// -> row.out [2]: the greatest of the listed logits, and ln of the mass relative to it.
class MassRule final : public KeyRule {
 public:
  explicit MassRule(const StagedRule& rule) : rule_(rule) {}

  bool tracks_maximum() const override { return true; }
  bool start(const QueryRow&, float&, float&) const override { return false; }
  void logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
              const Kernels& k) const override {
    rule_.listed_logits(row, first, count, side, s, k);
  }
  void numerators(const QueryRow&, float maximum, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    k.exp_minus(s, maximum, p, count);
  }
  void finish(const QueryRow& row, const RowSums& sums, Index value_width, const Kernels& k) const override;

 private:
  const StagedRule& rule_;
};

}  // namespace plait
