// readout: self_adjust_softmax. Accumulators A0 = sum p v and A1 = sum p s v; the row's least and greatest
// logit place each logit between 0 and 1.
#include <algorithm>

#include "layers/attention/stages.h"

namespace plait {
namespace {

class SelfAdjust final : public Readout {
  using Variant = SelfAdjustSoftmax::Variant;

 public:
  explicit SelfAdjust(const SelfAdjustSoftmax& settings)
      : variant_(settings.variant),
        c_num_(static_cast<float>(settings.c_num)),
        c_den_(static_cast<float>(settings.c_den)) {}

  bool tracks_minimum() const override { return variant_ != Variant::plain; }
  Index accumulators() const override { return 2; }
  void weights(Index, const float* s, const float* p, float* w, Index count,
               const Kernels& k) const override {
    k.multiply(s, p, w, count);
  }

  // o = (A1 - from A0) factor / range
  void finish(const QueryRow& row, const RowSums& sums, float factor, Index width,
              const Kernels& k) const override {
    float from = 0;
    if (variant_ == Variant::shifted && sums.mass > 0) from = sums.minimum;
    if (variant_ == Variant::normalised) {
      const float low = std::min(0.0f, sums.minimum), range = std::max(0.0f, sums.maximum) - low + c_den_;
      from = low - c_num_;
      factor = range == 0 ? 0.0f : factor / range;
    }
    std::copy_n(sums.sums + width, width, row.out);
    k.add_scaled(-from, sums.sums, row.out, width);
    k.scale(row.out, factor, row.out, width);
  }

 private:
  Variant variant_;
  float c_num_, c_den_;
};

}  // namespace

std::unique_ptr<Readout> make_self_adjust_softmax(const SelfAdjustSoftmax& settings) {
  return std::make_unique<SelfAdjust>(settings);
}

}  // namespace plait
