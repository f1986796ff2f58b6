#include "layers/reference/gated_mlp.h"

#include <cmath>
#include <numbers>

#include "layers/reference/dense.h"

namespace plait {

GatedMlpSettings read_gated_mlp(Config& config) {
  GatedMlpSettings s;
  s.width = config.width();
  s.hidden = config.integer("hidden", "columns between the projections");
  s.activation = static_cast<GatedMlpSettings::Activation>(
      config.choice("activation", {"silu", "gelu_tanh", "gelu", "relu"}, "function on the gate"));
  s.gate_multiplier =
      config.number_or("gate_multiplier", s.gate_multiplier, "factor on the gate's pre-activation");
  s.down_multiplier = config.number_or("down_multiplier", s.down_multiplier, "factor on the output");
  s.bias = config.boolean_or("bias", s.bias, "biases on all three projections");
  config.finish();
  return s;
}

std::vector<TensorSpec> gated_mlp_tensors(const GatedMlpSettings& s) {
  std::vector<TensorSpec> specs = {
      {"gate", {s.hidden, s.width}, Init::normal, "[hidden, width]", true},
      {"up", {s.hidden, s.width}, Init::normal, "[hidden, width]", true},
      {"down", {s.width, s.hidden}, Init::normal, "[width, hidden]", true},
  };
  if (s.bias) {
    specs.push_back({"gate_bias", {s.hidden}, Init::small, "[hidden]"});
    specs.push_back({"up_bias", {s.hidden}, Init::small, "[hidden]"});
    specs.push_back({"down_bias", {s.width}, Init::small, "[width]"});
  }
  return specs;
}

namespace {

double activate(GatedMlpSettings::Activation activation, double x) {
  switch (activation) {
    case GatedMlpSettings::Activation::silu:
      return x / (1 + std::exp(-x));
    case GatedMlpSettings::Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case GatedMlpSettings::Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case GatedMlpSettings::Activation::relu:
      return x > 0 ? x : 0;
  }
  return x;
}

class GatedMlpTwin final : public Twin {
 public:
  GatedMlpTwin(const GatedMlpSettings& settings, const Parameters& parameters) : settings_(settings) {
    gate_ = to_double(parameters.tensor("gate"));
    up_ = to_double(parameters.tensor("up"));
    down_ = to_double(parameters.tensor("down"));
    gate_bias_ = bias(parameters, "gate_bias", settings.hidden);
    up_bias_ = bias(parameters, "up_bias", settings.hidden);
    down_bias_ = bias(parameters, "down_bias", settings.width);
  }

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const Index rows = output.rows, hidden = settings_.hidden;
    std::vector<double> gates(static_cast<std::size_t>(rows * hidden)), ups(gates.size());
    const View<double> gate(gates.data(), rows, hidden), up(ups.data(), rows, hidden);
    dense_product(inputs[0], gate_, gate);
    dense_product(inputs[0], up_, up);
    for (Index t = 0; t < rows; ++t)
      for (Index c = 0; c < hidden; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const double pre = settings_.gate_multiplier * (gate(t, c) + gate_bias_[i]);
        gate(t, c) = activate(settings_.activation, pre) * (up(t, c) + up_bias_[i]);
      }
    dense_product(gate, down_, output);
    for (Index t = 0; t < rows; ++t)
      for (Index c = 0; c < output.cols; ++c)
        output(t, c) = settings_.down_multiplier * (output(t, c) + down_bias_[static_cast<std::size_t>(c)]);
  }

 private:
  static std::vector<double> bias(const Parameters& parameters, const std::string& name, Index size) {
    if (parameters.has(name)) return to_double(parameters.tensor(name));
    return std::vector<double>(static_cast<std::size_t>(size), 0.0);
  }

  GatedMlpSettings settings_;
  std::vector<double> gate_, up_;            // [hidden, width]
  std::vector<double> down_;                 // [width, hidden]
  std::vector<double> gate_bias_, up_bias_;  // [hidden]
  std::vector<double> down_bias_;            // [width]
};

}  // namespace

std::shared_ptr<Twin> make_gated_mlp_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<GatedMlpTwin>(read_gated_mlp(config), parameters);
}

}  // namespace plait
