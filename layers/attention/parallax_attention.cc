// readout: parallax_attention. o = attn - cov_p(r.k, v) = attn (1 + mean of r.k) - sum p (r.k) v
#include "layers/attention/stages.h"

namespace plait {
namespace {

class Parallax final : public Readout {
 public:
  bool second_logits() const override { return true; }
  Index accumulators() const override { return 2; }

  void finish(const QueryRow& row, const RowSums& sums, float factor, Index width,
              const Kernels& k) const override {
    k.scale(sums.sums, factor * (1 + sums.second_mass * factor), row.out, width);
    k.add_scaled(-factor, sums.sums + width, row.out, width);
  }
};

}  // namespace

std::unique_ptr<Readout> make_parallax_attention() { return std::make_unique<Parallax>(); }

}  // namespace plait
