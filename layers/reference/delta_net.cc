#include "layers/reference/delta_net.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/delta_rule.h"

namespace plait {

DeltaNetSettings read_delta_net(Config& config) {
  DeltaNetSettings s;
  s.width = config.width();
  s.chunk = config.surroundings().grids.chunk;
  s.num_heads = config.integer("num_heads", "heads");
  s.head_dim = config.integer("head_dim", "width of a query or key head");
  s.value_head_dim = config.integer_or("value_head_dim", s.head_dim, "width of a value head", 1);
  s.conv = config.integer_or("conv", s.conv, "kernel of the short convolution on q, k, v; 0 = none");
  s.qk_activation = static_cast<DeltaNetSettings::Activation>(config.choice(
      "qk_activation", {"silu", "relu", "elu", "identity"}, "on queries and keys; elu means elu(x) + 1"));
  s.qk_norm = static_cast<DeltaNetSettings::Norm>(
      config.choice("qk_norm", {"l2", "sum", "none"}, "norm of queries and keys per head"));
  s.beta = config.boolean_or("beta", s.beta, "write strength from the input; false = 1");
  s.negative_eigenvalues =
      config.boolean_or("negative_eigenvalues", s.negative_eigenvalues, "strength times 2");
  s.gate = read_output_gate(config, {"none", "silu", "sigmoid"});
  s.norm_eps = config.number_or("norm_eps", s.norm_eps, "of the output norm", 0);
  s.scale = config.number_or("scale", 0, "of the queries; 0 = head_dim^-1/2");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  s.query = read_query(config, s.num_heads, false);
  config.finish();
  return s;
}

std::vector<TensorSpec> delta_net_tensors(const DeltaNetSettings& s) {
  const Index keys = s.num_heads * s.head_dim, values = s.num_heads * s.value_head_dim;
  const char* key_rows = "[num_heads * head_dim, width]";
  const char* value_rows = "[num_heads * value_head_dim, width]";
  std::vector<TensorSpec> specs = {
      {"q", {keys, s.width}, Init::normal, key_rows, true},
      {"k", {keys, s.width}, Init::normal, key_rows, true},
      {"v", {values, s.width}, Init::normal, value_rows, true},
      {"norm", {s.value_head_dim}, Init::around_one, "[value_head_dim]"},
      {"o", {s.width, values}, Init::normal, "[width, num_heads * value_head_dim]", true}};
  if (s.beta) specs.push_back({"beta", {s.num_heads, s.width}, Init::normal, "[num_heads, width]", true});
  if (s.conv > 0) {
    specs.push_back({"q_conv", {keys, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
    specs.push_back({"k_conv", {keys, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
    specs.push_back({"v_conv", {values, s.conv}, Init::taps, "[num_heads * value_head_dim, conv]"});
  }
  add_gate_tensors(s.gate, values, s.width, "num_heads * value_head_dim", specs);
  add_query_tensors(s.query, s.num_heads, specs);
  return specs;
}

namespace {

using reference::Rows;

class DeltaNetTwin final : public reference::DeltaRuleTwin {
 public:
  DeltaNetTwin(const DeltaNetSettings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters), lambda_(query_lambdas(settings.query, parameters)) {}

  reference::DeltaInputs recurrence_inputs(View<const double> x) const override {
    Rows v = convolved("v", x);
    reference::map(v, reference::silu);
    reference::Heads heads{s_.num_heads, s_.num_heads,      s_.num_heads,
                           s_.head_dim,  s_.value_head_dim, s_.scale};
    Rows q = feature("q", x), k = feature("k", x);
    if (s_.query) reference::condition_query(*s_.query, lambda_, heads, q, k, nullptr);
    return {heads, std::move(q), std::move(k), std::move(v), std::nullopt, strengths(x)};
  }

  void finish(Rows o, View<const double> x, View<double> output) const override {
    reference::rms_normalise(o, s_.value_head_dim, s_.norm_eps, weights_["norm"]);
    reference::apply_gate(s_.gate, weights_, x, o);
    const Rows y = weights_.project("o", o.view());
    for (Index t = 0; t < y.rows; ++t) std::copy_n(y.row(t), y.cols, output.row(t));
  }

 private:
  Rows convolved(const std::string& name, View<const double> x) const {
    Rows y = weights_.project(name, x);
    return s_.conv > 0 ? weights_.convolve(name + "_conv", y) : y;
  }
  Rows feature(const std::string& name, View<const double> x) const {
    using Activation = DeltaNetSettings::Activation;
    Rows y = convolved(name, x);
    reference::map(y, [&](double value) {
      switch (s_.qk_activation) {
        case Activation::silu:
          return reference::silu(value);
        case Activation::relu:
          return std::max(value, 0.0);
        case Activation::elu:
          return value > 0 ? value + 1 : std::exp(value);
        case Activation::identity:
          break;
      }
      return value;
    });
    if (s_.qk_norm == DeltaNetSettings::Norm::l2) reference::l2_normalise(y, s_.head_dim, 1e-6);
    if (s_.qk_norm == DeltaNetSettings::Norm::sum) divide_by_sums(y);
    return y;
  }
  void divide_by_sums(Rows& y) const {
    for (Index t = 0; t < y.rows; ++t)
      for (Index c = 0; c < y.cols; c += s_.head_dim) {
        double sum = 0;
        for (Index i = 0; i < s_.head_dim; ++i) sum += y(t, c + i);
        for (Index i = 0; i < s_.head_dim; ++i) y(t, c + i) /= sum;
      }
  }
  Rows strengths(View<const double> x) const {
    Rows beta(x.rows, s_.num_heads);
    if (s_.beta) beta = weights_.project("beta", x);
    reference::map(beta, [&](double b) {
      return (s_.beta ? reference::sigmoid(b) : 1.0) * (s_.negative_eigenvalues ? 2 : 1);
    });
    return beta;
  }

  DeltaNetSettings s_;
  reference::Weights weights_;
  std::vector<double> lambda_;  // of the query
};

}  // namespace

std::shared_ptr<Twin> make_delta_net_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<DeltaNetTwin>(read_delta_net(config), parameters);
}

}  // namespace plait
