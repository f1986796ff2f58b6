// readout: mean. o = (sum of weight times value) / mass; a row that saw no key gives zero.
#include "layers/attention/stages.h"

namespace plait {
namespace {

class Mean final : public Readout {
 public:
  void finish(const QueryRow& row, const RowSums& sums, float factor, Index width,
              const Kernels& k) const override {
    k.scale(sums.sums, factor, row.out, width);
  }
};

class MeanAndLogMass final : public Readout {
 public:
  Index out_width(Index width) const override { return width + 1; }
  void finish(const QueryRow& row, const RowSums& sums, float factor, Index width,
              const Kernels& k) const override {
    k.scale(sums.sums, factor, row.out, width);
    row.out[width] = log_mass(sums, k);
  }
};

}  // namespace

std::unique_ptr<Readout> make_mean_and_log_mass() { return std::make_unique<MeanAndLogMass>(); }
std::unique_ptr<Readout> make_mean() { return std::make_unique<Mean>(); }

}  // namespace plait
