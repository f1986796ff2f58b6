#include "layers/reference/short_convolution.h"

#include <cmath>

namespace plait {

ShortConvolutionSettings read_short_convolution(Config& config) {
  ShortConvolutionSettings s;
  s.width = config.width();
  s.kernel = config.integer_or("kernel", s.kernel, "tokens it sees, the current one included", 1);
  s.bias = config.boolean_or("bias", s.bias, "adds a bias per channel");
  s.activation = static_cast<ShortConvolutionSettings::Activation>(
      config.choice("activation", {"none", "silu"}, "function on the sum"));
  config.finish();
  return s;
}

std::vector<TensorSpec> short_convolution_tensors(const ShortConvolutionSettings& s) {
  std::vector<TensorSpec> specs = {{"weight", {s.width, s.kernel}, Init::taps, "[width, kernel]"}};
  if (s.bias) specs.push_back({"bias", {s.width}, Init::small, "[width]"});
  return specs;
}

namespace {

class ShortConvolutionTwin final : public Twin {
 public:
  ShortConvolutionTwin(const ShortConvolutionSettings& settings, const Parameters& parameters)
      : settings_(settings), weight_(to_double(parameters.tensor("weight"))) {
    bias_.resize(static_cast<std::size_t>(settings.width), 0.0);
    if (settings.bias) bias_ = to_double(parameters.tensor("bias"));
  }

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    for (Index t = 0; t < x.rows; ++t)
      for (Index c = 0; c < x.cols; ++c) {
        double sum = bias_[static_cast<std::size_t>(c)];
        for (Index w = 0; w < settings_.kernel; ++w) {
          const Index source = t - (settings_.kernel - 1) + w;
          if (source >= 0) sum += weight_[static_cast<std::size_t>(c * settings_.kernel + w)] * x(source, c);
        }
        const bool silu = settings_.activation == ShortConvolutionSettings::Activation::silu;
        output(t, c) = silu ? sum / (1 + std::exp(-sum)) : sum;
      }
  }

 private:
  ShortConvolutionSettings settings_;
  std::vector<double> weight_;  // [width, kernel]
  std::vector<double> bias_;    // [width]
};

}  // namespace

std::shared_ptr<Twin> make_short_convolution_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<ShortConvolutionTwin>(read_short_convolution(config), parameters);
}

}  // namespace plait
