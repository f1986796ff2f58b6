#include "layers/reference/linear_attention.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/recurrence.h"

namespace plait {

LinearAttentionSettings read_linear_attention(Config& config) {
  LinearAttentionSettings s;
  s.width = config.width();
  s.chunk = config.surroundings().grids.chunk;
  s.num_heads = config.integer("num_heads", "query heads");
  s.num_kv_heads =
      config.integer_or("num_kv_heads", s.num_heads, "key and value heads, each with its state", 1);
  s.head_dim = config.integer("head_dim", "width of a query or key head");
  s.value_head_dim = config.integer_or("value_head_dim", s.head_dim, "width of a value head", 1);
  s.feature_map = static_cast<LinearAttentionSettings::Features>(config.choice(
      "feature_map", {"elu", "relu", "identity", "taylor2"}, "of queries and keys; elu means elu(x) + 1"));
  s.normalise = config.boolean_or("normalise", s.normalise, "divides by the sum of the weights");
  s.eps = config.number_or("eps", s.eps, "added to that sum");
  s.output_norm = config.boolean_or("output_norm", s.output_norm, "RMS norm per head");
  s.norm_eps = config.number_or("norm_eps", s.norm_eps, "of the output norm");
  s.scale = config.number_or("scale", 0, "of the queries; 0 = head_dim^-1/2");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  if (s.num_heads % s.num_kv_heads != 0)
    config.refuse("num_heads ", s.num_heads, " is not a multiple of num_kv_heads ", s.num_kv_heads);
  s.query = read_query(config, s.num_heads, false);
  config.finish();
  return s;
}

std::vector<TensorSpec> linear_attention_tensors(const LinearAttentionSettings& s) {
  const Index out = s.num_heads * s.value_head_dim;
  std::vector<TensorSpec> specs = {
      {"q", {s.num_heads * s.head_dim, s.width}, Init::normal, "[num_heads * head_dim, width]", true},
      {"k", {s.num_kv_heads * s.head_dim, s.width}, Init::normal, "[num_kv_heads * head_dim, width]", true},
      {"v",
       {s.num_kv_heads * s.value_head_dim, s.width},
       Init::normal,
       "[num_kv_heads * value_head_dim, width]",
       true},
      {"o", {s.width, out}, Init::normal, "[width, num_heads * value_head_dim]", true}};
  if (s.output_norm) specs.push_back({"norm", {s.value_head_dim}, Init::around_one, "[value_head_dim]"});
  add_query_tensors(s.query, s.num_heads, specs);
  return specs;
}

namespace {

using Features = LinearAttentionSettings::Features;
using reference::Rows;

class LinearAttentionTwin final : public Twin {
 public:
  LinearAttentionTwin(const LinearAttentionSettings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters), lambda_(query_lambdas(settings.query, parameters)) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    Rows q = features(weights_.project("q", x));
    const Rows k = features(weights_.project("k", x));
    const Rows v = weights_.project("v", x);
    reference::Heads heads{s_.num_heads,  s_.num_kv_heads,   s_.num_kv_heads,
                           s_.features(), s_.value_head_dim, s_.scale};
    if (s_.query) reference::condition_query(*s_.query, lambda_, heads, q, k, nullptr);
    Rows o = reference::decayed_sum(heads, q, k, v, nullptr, nullptr);
    if (s_.normalise) {
      // z = sum of phi(k): the same recurrence with the value 1.
      heads.value = 1;
      Rows ones(x.rows, s_.num_kv_heads);
      reference::map(ones, [](double) { return 1.0; });
      const Rows mass = reference::decayed_sum(heads, q, k, ones, nullptr, nullptr);
      for (Index t = 0; t < o.rows; ++t)
        for (Index c = 0; c < o.cols; ++c) o(t, c) /= mass(t, c / s_.value_head_dim) + s_.eps;
    }
    if (s_.output_norm) reference::rms_normalise(o, s_.value_head_dim, s_.norm_eps, weights_["norm"]);
    const Rows y = weights_.project("o", o.view());
    for (Index t = 0; t < y.rows; ++t) std::copy_n(y.row(t), y.cols, output.row(t));
  }

 private:
  Rows features(const Rows& x) const {
    const Index d = s_.head_dim, heads = x.cols / d;
    Rows y(x.rows, heads * s_.features());
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < heads; ++h) features_of(x.row(t) + h * d, y.row(t) + h * s_.features());
    return y;
  }
  void features_of(const double* x, double* y) const {
    const Index d = s_.head_dim;
    if (s_.feature_map == Features::taylor2) {
      *y++ = 1;
      for (Index i = 0; i < d; ++i) *y++ = x[i] / std::pow(static_cast<double>(d), 0.25);
      for (Index i = 0; i < d; ++i) *y++ = x[i] * x[i] / std::sqrt(2.0 * static_cast<double>(d));
      for (Index i = 0; i < d; ++i)
        for (Index j = i + 1; j < d; ++j) *y++ = x[i] * x[j] / std::sqrt(static_cast<double>(d));
      return;
    }
    for (Index i = 0; i < d; ++i) {
      y[i] = x[i];
      if (s_.feature_map == Features::elu) y[i] = x[i] > 0 ? x[i] + 1 : std::exp(x[i]);
      if (s_.feature_map == Features::relu) y[i] = std::max(x[i], 0.0);
    }
  }

  LinearAttentionSettings s_;
  reference::Weights weights_;
  std::vector<double> lambda_;  // of the query
};

}  // namespace

std::shared_ptr<Twin> make_linear_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<LinearAttentionTwin>(read_linear_attention(config), parameters);
}

}  // namespace plait
