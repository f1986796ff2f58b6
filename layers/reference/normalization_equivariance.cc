#include "layers/reference/normalization_equivariance.h"

#include <cmath>

namespace plait {

using Settings = NormalizationEquivarianceSettings;

Settings read_normalization_equivariance(Config& config) {
  Settings s;
  s.width = config.width();
  const Index inputs = config.surroundings().inputs;
  if (inputs != 1 && inputs != 2)
    config.refuse("it takes the signal, and behind the network the network's output too; the node has ",
                  inputs, " inputs");
  s.closes = inputs == 2;
  s.form = static_cast<Settings::Form>(config.choice(
      "form", {"direct", "residual", "scale_only"},
      "what the network's output is: the signal, what to take from it, or the signal without its mean "
      "put back; the same in both nodes"));
  config.finish();
  return s;
}

namespace {

class NormalizationEquivarianceTwin final : public Twin {
 public:
  explicit NormalizationEquivarianceTwin(const Settings& settings) : s_(settings) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> y = inputs[0];
    const double count = static_cast<double>(y.rows * y.cols);
    double mean = 0, squares = 0;
    if (s_.form != Settings::Form::scale_only)
      for (Index t = 0; t < y.rows; ++t)
        for (Index c = 0; c < y.cols; ++c) mean += y(t, c) / count;
    for (Index t = 0; t < y.rows; ++t)
      for (Index c = 0; c < y.cols; ++c) squares += (y(t, c) - mean) * (y(t, c) - mean);
    const double deviation = count > 1 ? std::sqrt(squares / (count - 1)) : 0;
    const double root = std::sqrt(squares / count);
    for (Index t = 0; t < y.rows; ++t)
      for (Index c = 0; c < y.cols; ++c) {
        const double g = s_.closes ? inputs[1](t, c) : 0;
        switch (s_.form) {
          case Settings::Form::direct:
            output(t, c) = s_.closes ? deviation * g + mean : normed(y(t, c) - mean, deviation);
            break;
          case Settings::Form::residual:
            output(t, c) = s_.closes ? y(t, c) - deviation * g : normed(y(t, c) - mean, deviation);
            break;
          case Settings::Form::scale_only:
            output(t, c) = s_.closes ? root * g : y(t, c) / (root + kScaleOnlyEps);
            break;
        }
      }
  }

 private:
  static double normed(double difference, double deviation) {
    return deviation == 0 ? 0 : difference / deviation;
  }

  Settings s_;
};

}  // namespace

std::shared_ptr<Twin> make_normalization_equivariance_twin(Config& config, const Parameters&) {
  return std::make_shared<NormalizationEquivarianceTwin>(read_normalization_equivariance(config));
}

}  // namespace plait
