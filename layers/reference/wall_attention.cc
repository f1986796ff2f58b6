#include "layers/reference/wall_attention.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/recurrence.h"

namespace plait {

WallAttentionSettings read_wall_attention(Config& config) {
  WallAttentionSettings s;
  s.projection = read_heads(config);
  s.projection.qk_norm = read_qk_norm(config);
  s.scale = config.number_or("scale", 0, "of the logits; 0 = head_dim^-1/2");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.projection.head_dim));
  s.window = config.integer_or("window", 0, "keys a row sees: those fewer positions away than this; 0 = all");
  s.sink = config.choice("normaliser", {"softmax", "sink_softmax"},
                         "how logits become weights: as they are, or beside a learned logit") == 1;
  s.forget_gate = config.boolean_or("forget_gate", false,
                                    "a decay per query head besides, from the input, added to the logits");
  config.finish();
  return s;
}

std::vector<TensorSpec> wall_attention_tensors(const WallAttentionSettings& s) {
  const ProjectionSettings& p = s.projection;
  const Index channels = p.num_heads * p.head_dim;
  std::vector<TensorSpec> specs = projection_tensors(p);
  specs.push_back({"decay", {channels, p.width}, Init::normal, "[num_heads * head_dim, width]", true});
  specs.push_back({"decay_bias", {channels}, Init::small, "[num_heads * head_dim]"});
  if (s.forget_gate) {
    specs.push_back({"forget", {p.num_heads, p.width}, Init::normal, "[num_heads, width]", true});
    specs.push_back({"forget_bias", {p.num_heads}, Init::small, "[num_heads]"});
  }
  if (s.sink) specs.push_back({"sinks", {p.num_heads}, Init::small, "[num_heads]"});
  specs.push_back({"o",
                   {p.width, p.num_heads * p.value_head_dim},
                   Init::normal,
                   "[width, num_heads * value_head_dim]",
                   true});
  return specs;
}

namespace {

using reference::Rows;

class WallAttentionTwin final : public Twin {
 public:
  WallAttentionTwin(const WallAttentionSettings& settings, const Parameters& parameters)
      : s_(settings), projection_(settings.projection, parameters), weights_(parameters) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    const ProjectionSettings& p = s_.projection;
    const ProjectionTwin::Rows rows = projection_.run(x);
    const Rows sums = decay_sums("decay", x);
    const Rows forget = s_.forget_gate ? decay_sums("forget", x) : Rows(x.rows, p.num_heads);
    Rows heads(x.rows, p.num_heads * p.value_head_dim);
    for (Index i = 0; i < x.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h)
        attend(rows, sums, forget, i, h, heads.row(i) + h * p.value_head_dim);
    const Rows y = weights_.project("o", heads.view());
    for (Index i = 0; i < x.rows; ++i) std::copy_n(y.row(i), y.cols, output.row(i));
  }

 private:
  // Running sums of logsigmoid(W x + b), channel by channel.
  Rows decay_sums(const std::string& name, View<const double> x) const {
    Rows sums = weights_.project(name, x);
    for (Index t = 0; t < sums.rows; ++t)
      for (Index c = 0; c < sums.cols; ++c)
        sums(t, c) = reference::log_sigmoid(sums(t, c) + weights_.at(name + "_bias", c)) +
                     (t > 0 ? sums(t - 1, c) : 0);
    return sums;
  }

  void attend(const ProjectionTwin::Rows& rows, const Rows& sums, const Rows& forget, Index i, Index h,
              double* out) const {
    const ProjectionSettings& p = s_.projection;
    const Index kv = h / p.group(), d = p.head_dim;
    const double* q = rows.q.data() + (i * p.num_heads + h) * d;
    const Index first = s_.window > 0 ? std::max<Index>(0, i - s_.window + 1) : 0;
    std::vector<double> s;
    for (Index j = first; j <= i; ++j) {
      const double* k = rows.k.data() + (j * p.num_kv_heads + kv) * d;
      double dot = 0;
      for (Index c = 0; c < d; ++c) dot += q[c] * k[c] * std::exp(sums(i, h * d + c) - sums(j, h * d + c));
      s.push_back(s_.scale * dot + forget(i, h) - forget(j, h));
    }
    if (s_.sink) s.push_back(weights_.at("sinks", h));
    const double maximum = *std::max_element(s.begin(), s.end());
    double mass = 0;
    for (double& value : s) mass += value = std::exp(value - maximum);
    for (Index j = first; j <= i; ++j)
      for (Index c = 0; c < p.value_head_dim; ++c)
        out[c] += s[static_cast<std::size_t>(j - first)] / mass *
                  rows.v[static_cast<std::size_t>((j * p.num_kv_heads + kv) * p.value_head_dim + c)];
  }

  WallAttentionSettings s_;
  ProjectionTwin projection_;
  reference::Weights weights_;
};

}  // namespace

std::shared_ptr<Twin> make_wall_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<WallAttentionTwin>(read_wall_attention(config), parameters);
}

}  // namespace plait
