#include "layers/reference/head.h"

#include <cmath>

#include "layers/reference/dense.h"

namespace plait {

HeadSettings read_head(Config& config) {
  HeadSettings s;
  s.width = config.width();
  s.vocab = config.surroundings().vocab;
  s.multiplier = config.number_or("multiplier", s.multiplier, "factor on the logits");
  s.softcap = config.number_or("softcap", s.softcap, "logits := softcap * tanh(logits / softcap); 0 = off");
  if (s.softcap < 0) config.refuse("setting 'softcap' must be at least 0, found ", s.softcap);
  config.finish();
  return s;
}

std::vector<TensorSpec> head_tensors(const HeadSettings& s) {
  return {{"weight", {s.vocab, s.width}, Init::normal, "[vocab, width]", true}};
}

namespace {

class HeadTwin final : public Twin {
 public:
  HeadTwin(const HeadSettings& settings, const Parameters& parameters)
      : settings_(settings), weight_(to_double(parameters.tensor("weight"))) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    dense_product(inputs[0], weight_, output);
    for (Index t = 0; t < output.rows; ++t)
      for (Index c = 0; c < output.cols; ++c) {
        double& y = output(t, c);
        y *= settings_.multiplier;
        if (settings_.softcap > 0) y = settings_.softcap * std::tanh(y / settings_.softcap);
      }
  }

 private:
  HeadSettings settings_;
  std::vector<double> weight_;  // [vocab, width]
};

}  // namespace

std::shared_ptr<Twin> make_head_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<HeadTwin>(read_head(config), parameters);
}

}  // namespace plait
