#include "layers/reference/scale.h"

namespace plait {

ScaleSettings read_scale(Config& config) {
  ScaleSettings s;
  s.width = config.width();
  s.factor = config.number("factor", "what every element is multiplied by");
  config.finish();
  return s;
}

std::vector<TensorSpec> scale_tensors(const ScaleSettings&) { return {}; }

namespace {

class ScaleTwin final : public Twin {
 public:
  explicit ScaleTwin(const ScaleSettings& settings) : factor_(settings.factor) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    for (Index t = 0; t < output.rows; ++t)
      for (Index c = 0; c < output.cols; ++c) output(t, c) = factor_ * inputs[0](t, c);
  }

 private:
  double factor_;
};

}  // namespace

std::shared_ptr<Twin> make_scale_twin(Config& config, const Parameters&) {
  return std::make_shared<ScaleTwin>(read_scale(config));
}

}  // namespace plait
