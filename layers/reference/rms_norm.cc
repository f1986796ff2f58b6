#include "layers/reference/rms_norm.h"

#include <cmath>

namespace plait {

RmsNormSettings read_rms_norm(Config& config) {
  RmsNormSettings s;
  s.width = config.width();
  s.eps = config.number_or("eps", s.eps, "added to the mean square inside the root");
  if (s.eps <= 0) config.refuse("setting 'eps' must be above 0, found ", s.eps);
  s.form =
      static_cast<RmsNormSettings::Form>(config.choice("form", {"plain", "one_plus"}, "gain w, or 1 + w"));
  config.finish();
  return s;
}

std::vector<TensorSpec> rms_norm_tensors(const RmsNormSettings& s) {
  // A gain starts near 1 in either form.
  const Init init = s.form == RmsNormSettings::Form::plain ? Init::around_one : Init::small;
  return {{"weight", {s.width}, init, "[width]"}};
}

namespace {

class RmsNormTwin final : public Twin {
 public:
  RmsNormTwin(const RmsNormSettings& settings, const Parameters& parameters)
      : settings_(settings), weight_(to_double(parameters.tensor("weight"))) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    const double one = settings_.form == RmsNormSettings::Form::one_plus ? 1 : 0;
    for (Index t = 0; t < x.rows; ++t) {
      double squares = 0;
      for (Index c = 0; c < x.cols; ++c) squares += x(t, c) * x(t, c);
      const double root = std::sqrt(squares / static_cast<double>(x.cols) + settings_.eps);
      for (Index c = 0; c < x.cols; ++c)
        output(t, c) = x(t, c) / root * (one + weight_[static_cast<std::size_t>(c)]);
    }
  }

 private:
  RmsNormSettings settings_;
  std::vector<double> weight_;  // [width]
};

}  // namespace

std::shared_ptr<Twin> make_rms_norm_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<RmsNormTwin>(read_rms_norm(config), parameters);
}

}  // namespace plait
