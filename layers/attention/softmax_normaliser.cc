// normaliser: softmax, softmax_one, sink_softmax. A sink is a logit without key and value: the row starts
// with it in the denominator, (maximum, mass) = (c, 1) instead of (-infinity, 0), and nothing else changes.
#include "layers/attention/stages.h"

namespace plait {
namespace {

class SoftmaxNormaliser final : public Normaliser {
 public:
  explicit SoftmaxNormaliser(std::vector<float> sinks) : sinks_(std::move(sinks)) {}

  bool tracks_maximum() const override { return true; }

  bool start(const QueryRow& row, float& maximum, float& mass) const override {
    if (sinks_.empty()) return false;
    maximum = sinks_[static_cast<std::size_t>(row.head)];
    mass = 1;
    return true;
  }

  void numerators(const QueryRow&, float maximum, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    k.exp_minus(s, maximum, p, count);
  }

 private:
  std::vector<float> sinks_;  // [num_heads], or empty
};

}  // namespace

std::unique_ptr<Normaliser> make_softmax(const Softmax& settings, StageParts& parts) {
  std::vector<float> sinks;
  if (settings.sink == Softmax::Sink::zero)
    sinks.assign(static_cast<std::size_t>(parts.settings.projection.num_heads), 0.0f);
  if (settings.sink == Softmax::Sink::learned) sinks = to_float(parts.parameters.tensor("sinks"));
  return std::make_unique<SoftmaxNormaliser>(std::move(sinks));
}

}  // namespace plait
