#include "layers/reference/feature_attention.h"

#include <algorithm>
#include <limits>
#include <string>

namespace plait {

void read_feature_heads(Config& config, FeatureAttentionSettings& s) {
  s.width = config.width();
  s.chunk = config.surroundings().grids.chunk;
  s.num_heads = config.integer("num_heads", "query heads");
  s.num_kv_heads =
      config.integer_or("num_kv_heads", s.num_heads, "key and value heads, each with its state", 1);
  if (s.num_heads % s.num_kv_heads != 0)
    config.refuse("num_heads ", s.num_heads, " is not a multiple of num_kv_heads ", s.num_kv_heads);
}

void read_narrow_keys(Config& config, FeatureAttentionSettings& s) {
  s.head_dim = config.integer_or("head_dim", 16, "width of a query or key head", 1);
  s.value_head_dim =
      config.integer_or("value_head_dim", 0, "width of a value head; 0 = the input's width / num_heads");
  if (s.value_head_dim > 0) return;
  s.value_head_dim = s.width / s.num_heads;
  if (s.width % s.num_heads != 0)
    config.refuse("num_heads ", s.num_heads, " does not divide the width ", s.width,
                  ", and value_head_dim is not given");
}

std::vector<TensorSpec> feature_attention_tensors(const FeatureAttentionSettings& s) {
  const Index out = s.num_heads * s.value_head_dim;
  std::vector<TensorSpec> specs, biases;
  const auto project = [&](const char* name, Index rows, const char* text) {
    specs.push_back({name, {rows, s.width}, Init::normal, cat("[", text, ", width]"), true});
    biases.push_back({cat(name, "_bias"), {rows}, Init::small, cat("[", text, "]")});
  };
  project("q", s.num_heads * s.head_dim, "num_heads * head_dim");
  project("k", s.num_kv_heads * s.head_dim, "num_kv_heads * head_dim");
  project("v", s.num_kv_heads * s.value_head_dim, "num_kv_heads * value_head_dim");
  specs.push_back({"o", {s.width, out}, Init::normal, "[width, num_heads * value_head_dim]", true});
  biases.push_back({"o_bias", {s.width}, Init::small, "[width]"});
  if (s.bias) specs.insert(specs.end(), biases.begin(), biases.end());
  if (s.output_norm) specs.push_back({"norm", {s.value_head_dim}, Init::around_one, "[value_head_dim]"});
  add_query_tensors(s.query, s.num_heads, specs);
  return specs;
}

void FeatureAttentionTwin::run(std::span<const View<const double>> inputs, std::span<const Token>,
                               View<double> output) const {
  const View<const double> x = inputs[0];
  Rows q = features(Side::query, project("q", x));
  const Rows k = features(Side::key, project("k", x));
  const Rows v = project("v", x);
  reference::Heads heads{s_.num_heads,          s_.num_kv_heads,   s_.num_kv_heads,
                         q.cols / s_.num_heads, s_.value_head_dim, s_.scale};
  if (s_.query) reference::condition_query(*s_.query, lambda_, heads, q, k, nullptr);
  Rows o = reference::decayed_sum(heads, q, k, v, nullptr, nullptr);
  if (s_.normalises()) {
    // z = sum of phi(k): the same recurrence with the value 1.
    heads.value = 1;
    Rows ones(x.rows, s_.num_kv_heads);
    reference::map(ones, [](double) { return 1.0; });
    const Rows mass = reference::decayed_sum(heads, q, k, ones, nullptr, nullptr);
    for (Index t = 0; t < o.rows; ++t)
      for (Index c = 0; c < o.cols; ++c) o(t, c) /= divisor(mass(t, c / s_.value_head_dim));
  }
  if (s_.output_norm) reference::rms_normalise(o, s_.value_head_dim, s_.norm_eps, weights_["norm"]);
  const Rows y = project("o", o.view());
  for (Index t = 0; t < y.rows; ++t) std::copy_n(y.row(t), y.cols, output.row(t));
}

reference::Rows FeatureAttentionTwin::project(const char* name, View<const double> x) const {
  Rows y = weights_.project(name, x);
  for (Index t = 0; s_.bias && t < y.rows; ++t)
    for (Index c = 0; c < y.cols; ++c) y(t, c) += weights_.at(cat(name, "_bias"), c);
  return y;
}

double FeatureAttentionTwin::divisor(double mass) const {
  using Division = FeatureAttentionSettings::Division;
  if (s_.division == Division::plus_eps) return mass + s_.eps;
  if (s_.division == Division::at_least_eps) return std::max(mass, s_.eps);
  return mass > 0 ? mass : std::numeric_limits<double>::infinity();
}

}  // namespace plait
