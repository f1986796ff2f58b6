#include "layers/reference/layer_norm.h"

#include <cmath>

namespace plait {

LayerNormSettings read_layer_norm(Config& config) {
  LayerNormSettings s;
  s.width = config.width();
  s.eps = config.number_or("eps", s.eps, "added to the variance inside the root");
  if (s.eps <= 0) config.refuse("setting 'eps' must be above 0, found ", s.eps);
  s.bias = config.boolean_or("bias", s.bias, "adds a bias after the gain");
  config.finish();
  return s;
}

std::vector<TensorSpec> layer_norm_tensors(const LayerNormSettings& s) {
  std::vector<TensorSpec> specs = {{"weight", {s.width}, Init::around_one, "[width]"}};
  if (s.bias) specs.push_back({"bias", {s.width}, Init::small, "[width]"});
  return specs;
}

namespace {

class LayerNormTwin final : public Twin {
 public:
  LayerNormTwin(const LayerNormSettings& settings, const Parameters& parameters)
      : eps_(settings.eps),
        weight_(to_double(parameters.tensor("weight"))),
        bias_(settings.bias ? to_double(parameters.tensor("bias"))
                            : std::vector<double>(weight_.size(), 0.0)) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    const double n = static_cast<double>(x.cols);
    for (Index t = 0; t < x.rows; ++t) {
      double mean = 0, variance = 0;
      for (Index c = 0; c < x.cols; ++c) mean += x(t, c) / n;
      for (Index c = 0; c < x.cols; ++c) variance += (x(t, c) - mean) * (x(t, c) - mean) / n;
      for (Index c = 0; c < x.cols; ++c) {
        const auto i = static_cast<std::size_t>(c);
        output(t, c) = (x(t, c) - mean) / std::sqrt(variance + eps_) * weight_[i] + bias_[i];
      }
    }
  }

 private:
  double eps_;
  std::vector<double> weight_, bias_;  // [width]
};

}  // namespace

std::shared_ptr<Twin> make_layer_norm_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<LayerNormTwin>(read_layer_norm(config), parameters);
}

}  // namespace plait
