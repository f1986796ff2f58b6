#include "layers/reference/gated_linear_attention.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/recurrence.h"

namespace plait {

GatedLinearAttentionSettings read_gated_linear_attention(Config& config) {
  GatedLinearAttentionSettings s;
  s.width = config.width();
  s.chunk = config.surroundings().grids.chunk;
  s.num_heads = config.integer("num_heads", "query heads");
  s.num_kv_heads = config.integer_or("num_kv_heads", s.num_heads, "key, value and decay heads", 1);
  s.head_dim = config.integer("head_dim", "width of a query or key head");
  s.value_head_dim = config.integer_or("value_head_dim", s.head_dim, "width of a value head", 1);
  s.decay_rank = config.integer_or("decay_rank", s.decay_rank, "inner width of the decay's projection", 1);
  s.decay_temperature = config.number_or("decay_temperature", s.decay_temperature, "divides the log decay");
  s.gate = read_output_gate(config, {"silu", "sigmoid", "none"});
  config.choice("norm_order", {"norm_then_gate"}, "order of output norm and gate");
  s.norm_eps = config.number_or("norm_eps", s.norm_eps, "of the output norm", 0);
  s.conv =
      config.integer_or("conv", s.conv, "kernel of the short convolution on q, k, v (with silu); 0 = none");
  s.scale = config.number_or("scale", 0, "of the queries; 0 = head_dim^-1/2");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  if (s.num_heads % s.num_kv_heads != 0)
    config.refuse("num_heads ", s.num_heads, " is not a multiple of num_kv_heads ", s.num_kv_heads);
  if (!(s.decay_temperature > 0)) config.refuse("decay_temperature ", s.decay_temperature, " is not above 0");
  s.query = read_query(config, s.num_heads, true);
  config.finish();
  return s;
}

std::vector<TensorSpec> gated_linear_attention_tensors(const GatedLinearAttentionSettings& s) {
  const Index queries = s.num_heads * s.head_dim, keys = s.num_kv_heads * s.head_dim;
  const Index values = s.num_kv_heads * s.value_head_dim, out = s.num_heads * s.value_head_dim;
  const char* query_rows = "[num_heads * head_dim, width]";
  const char* key_rows = "[num_kv_heads * head_dim, width]";
  const char* value_rows = "[num_kv_heads * value_head_dim, width]";
  std::vector<TensorSpec> specs = {
      {"q", {queries, s.width}, Init::normal, query_rows, true},
      {"k", {keys, s.width}, Init::normal, key_rows, true},
      {"v", {values, s.width}, Init::normal, value_rows, true},
      {"decay_0", {s.decay_rank, s.width}, Init::normal, "[decay_rank, width]", true},
      {"decay_1", {keys, s.decay_rank}, Init::normal, "[num_kv_heads * head_dim, decay_rank]", true},
      {"decay_bias", {keys}, Init::small, "[num_kv_heads * head_dim]"},
      {"norm", {s.value_head_dim}, Init::around_one, "[value_head_dim]"},
      {"o", {s.width, out}, Init::normal, "[width, num_heads * value_head_dim]", true}};
  if (s.conv > 0) {
    specs.push_back({"q_conv", {queries, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
    specs.push_back({"k_conv", {keys, s.conv}, Init::taps, "[num_kv_heads * head_dim, conv]"});
    specs.push_back({"v_conv", {values, s.conv}, Init::taps, "[num_kv_heads * value_head_dim, conv]"});
  }
  add_gate_tensors(s.gate, out, s.width, "num_heads * value_head_dim", specs);
  add_query_tensors(s.query, s.num_heads, specs);
  return specs;
}

namespace {

using reference::Rows;

class GatedLinearAttentionTwin final : public Twin {
 public:
  GatedLinearAttentionTwin(const GatedLinearAttentionSettings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters), lambda_(query_lambdas(settings.query, parameters)) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    Rows g = weights_.project("decay_1", weights_.project("decay_0", x).view());
    for (Index t = 0; t < g.rows; ++t)
      for (Index c = 0; c < g.cols; ++c)
        g(t, c) = reference::log_sigmoid(g(t, c) + weights_.at("decay_bias", c)) / s_.decay_temperature;
    reference::Heads heads{s_.num_heads, s_.num_kv_heads,   s_.num_kv_heads,
                           s_.head_dim,  s_.value_head_dim, s_.scale};
    Rows q = input("q", x);
    const Rows k = input("k", x);
    if (s_.query) reference::condition_query(*s_.query, lambda_, heads, q, k, &g);
    Rows o = reference::decayed_sum(heads, q, k, input("v", x), &g, nullptr);
    reference::rms_normalise(o, s_.value_head_dim, s_.norm_eps, weights_["norm"]);
    reference::apply_gate(s_.gate, weights_, x, o);
    const Rows y = weights_.project("o", o.view());
    for (Index t = 0; t < y.rows; ++t) std::copy_n(y.row(t), y.cols, output.row(t));
  }

 private:
  Rows input(const std::string& name, View<const double> x) const {
    Rows y = weights_.project(name, x);
    if (s_.conv == 0) return y;
    y = weights_.convolve(name + "_conv", y);
    reference::map(y, reference::silu);
    return y;
  }

  GatedLinearAttentionSettings s_;
  reference::Weights weights_;
  std::vector<double> lambda_;  // of the query
};

}  // namespace

std::shared_ptr<Twin> make_gated_linear_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<GatedLinearAttentionTwin>(read_gated_linear_attention(config), parameters);
}

}  // namespace plait
