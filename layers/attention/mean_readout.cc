// readout: mean. o = (sum of numerator times value) / mass; a row that saw no key gives zero.
#include "layers/attention/stages.h"

namespace plait {
namespace {

class Mean final : public Readout {
 public:
  void finish(const QueryRow& row, float, float mass, const float* accumulators, Index width,
              const Kernels& k) const override {
    k.scale(accumulators, mass == 0 ? 0.0f : 1.0f / mass, row.out, width);
  }
};

}  // namespace

std::unique_ptr<Readout> make_mean(const SoftmaxAttentionSettings&, const Parameters&) {
  return std::make_unique<Mean>();
}

}  // namespace plait
