#include "layers/reference/gated_delta_net.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/delta_rule.h"

namespace plait {

GatedDeltaNetSettings read_gated_delta_net(Config& config) {
  GatedDeltaNetSettings s;
  s.width = config.width();
  s.chunk = config.surroundings().grids.chunk;
  s.num_heads = config.integer("num_heads", "query and key heads");
  s.num_value_heads =
      config.integer_or("num_value_heads", s.num_heads, "value heads, each with its own state", 1);
  s.head_dim = config.integer("head_dim", "width of a query or key head");
  s.value_head_dim = config.integer_or("value_head_dim", s.head_dim, "width of a value head", 1);
  s.conv = config.integer_or("conv", s.conv, "kernel of the short convolution on q, k, v; 0 = none");
  s.negative_eigenvalues =
      config.boolean_or("negative_eigenvalues", s.negative_eigenvalues, "beta in (0, 2)");
  s.gate = read_output_gate(config, {"silu", "sigmoid", "none"});
  s.norm_eps = config.number_or("norm_eps", s.norm_eps, "of the output norm", 0);
  config.choice("qk_norm", {"l2"}, "norm of queries and keys");
  s.scale = config.number_or("scale", 0, "of the queries; 0 = head_dim^-1/2");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  if (s.num_value_heads % s.num_heads != 0)
    config.refuse("num_value_heads ", s.num_value_heads, " is not a multiple of num_heads ", s.num_heads);
  s.query = read_query(config, s.num_value_heads, false);
  config.finish();
  return s;
}

std::vector<TensorSpec> gated_delta_net_tensors(const GatedDeltaNetSettings& s) {
  const Index keys = s.num_heads * s.head_dim, values = s.num_value_heads * s.value_head_dim;
  const char* key_rows = "[num_heads * head_dim, width]";
  const char* value_rows = "[num_value_heads * value_head_dim, width]";
  std::vector<TensorSpec> specs = {
      {"q", {keys, s.width}, Init::normal, key_rows, true},
      {"k", {keys, s.width}, Init::normal, key_rows, true},
      {"v", {values, s.width}, Init::normal, value_rows, true},
      {"a", {s.num_value_heads, s.width}, Init::normal, "[num_value_heads, width]", true},
      {"beta", {s.num_value_heads, s.width}, Init::normal, "[num_value_heads, width]", true},
      {"a_log", {s.num_value_heads}, Init::decay_log, "[num_value_heads]"},
      {"dt_bias", {s.num_value_heads}, Init::time_step, "[num_value_heads]"},
      {"norm", {s.value_head_dim}, Init::around_one, "[value_head_dim]"},
      {"o", {s.width, values}, Init::normal, "[width, num_value_heads * value_head_dim]", true}};
  if (s.conv > 0) {
    specs.push_back({"q_conv", {keys, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
    specs.push_back({"k_conv", {keys, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
    specs.push_back({"v_conv", {values, s.conv}, Init::taps, "[num_value_heads * value_head_dim, conv]"});
  }
  add_gate_tensors(s.gate, values, s.width, "num_value_heads * value_head_dim", specs);
  add_query_tensors(s.query, s.num_value_heads, specs);
  return specs;
}

namespace {

using reference::Rows;

class GatedDeltaNetTwin final : public reference::DeltaRuleTwin {
 public:
  GatedDeltaNetTwin(const GatedDeltaNetSettings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters), lambda_(query_lambdas(settings.query, parameters)) {}

  reference::DeltaInputs recurrence_inputs(View<const double> x) const override {
    Rows q = convolved("q", x), k = convolved("k", x);
    reference::l2_normalise(q, s_.head_dim, 1e-6);
    reference::l2_normalise(k, s_.head_dim, 1e-6);
    reference::Heads heads{s_.num_heads, s_.num_heads,      s_.num_value_heads,
                           s_.head_dim,  s_.value_head_dim, s_.scale};
    Rows g = log_decays(x);
    if (s_.query) reference::condition_query(*s_.query, lambda_, heads, q, k, &g);
    return {heads, std::move(q), std::move(k), convolved("v", x), std::move(g), strengths(x)};
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
    if (s_.conv > 0) y = weights_.convolve(name + "_conv", y);
    reference::map(y, reference::silu);
    return y;
  }
  Rows log_decays(View<const double> x) const {
    Rows g = weights_.project("a", x);
    for (Index t = 0; t < g.rows; ++t)
      for (Index h = 0; h < g.cols; ++h)
        g(t, h) =
            -std::exp(weights_.at("a_log", h)) * reference::softplus(g(t, h) + weights_.at("dt_bias", h));
    return g;
  }
  Rows strengths(View<const double> x) const {
    Rows beta = weights_.project("beta", x);
    reference::map(beta, [&](double b) { return (s_.negative_eigenvalues ? 2 : 1) * reference::sigmoid(b); });
    return beta;
  }

  GatedDeltaNetSettings s_;
  reference::Weights weights_;
  std::vector<double> lambda_;  // of the query
};

}  // namespace

std::shared_ptr<Twin> make_gated_delta_net_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<GatedDeltaNetTwin>(read_gated_delta_net(config), parameters);
}

}  // namespace plait
