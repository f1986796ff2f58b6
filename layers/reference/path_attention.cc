#include "layers/reference/path_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/reference/recurrence.h"

namespace plait {

PathAttentionSettings read_path_attention(Config& config) {
  PathAttentionSettings s;
  s.projection = read_heads(config);
  s.projection.qk_norm = read_qk_norm(config);
  s.scale = config.number_or("scale", 0, "of the logits; 0 = head_dim^-1/2");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.projection.head_dim));
  s.w_rank = config.integer_or("w_rank", s.w_rank, "rank of the projection to w; 0 = a full matrix");
  s.conv = config.integer_or("conv", s.conv, "kernel of the short convolution on w; 0 = none, and no silu");
  s.forget_gate = config.boolean_or("forget_gate", s.forget_gate, "a decay per query head, from the input");
  config.finish();
  return s;
}

std::vector<TensorSpec> path_attention_tensors(const PathAttentionSettings& s) {
  const ProjectionSettings& p = s.projection;
  const Index keys = p.num_kv_heads * p.head_dim;
  std::vector<TensorSpec> specs = projection_tensors(p);
  const auto add = [&](TensorSpec spec) { specs.push_back(std::move(spec)); };
  if (s.w_rank > 0) {
    add({"w_down", {s.w_rank, p.width}, Init::normal, "[w_rank, width]", true});
    add({"w", {keys, s.w_rank}, Init::normal, "[num_kv_heads * head_dim, w_rank]", true});
  } else {
    add({"w", {keys, p.width}, Init::normal, "[num_kv_heads * head_dim, width]", true});
  }
  if (s.conv > 0) add({"w_conv", {keys, s.conv}, Init::taps, "[num_kv_heads * head_dim, conv]"});
  add({"beta", {p.num_kv_heads, p.width}, Init::normal, "[num_kv_heads, width]", true});
  add({"beta_bias", {p.num_kv_heads}, Init::small, "[num_kv_heads]"});
  if (s.forget_gate) {
    add({"forget", {p.num_heads, p.width}, Init::normal, "[num_heads, width]", true});
    add({"forget_bias", {p.num_heads}, Init::small, "[num_heads]"});
  }
  add({"o",
       {p.width, p.num_heads * p.value_head_dim},
       Init::normal,
       "[width, num_heads * value_head_dim]",
       true});
  return specs;
}

namespace {

using reference::Rows;

class PathAttentionTwin final : public Twin {
 public:
  PathAttentionTwin(const PathAttentionSettings& settings, const Parameters& parameters)
      : s_(settings), projection_(settings.projection, parameters), weights_(parameters) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    const ProjectionSettings& p = s_.projection;
    const Prepared all{projection_.run(x), directions(x), strengths(x), decay_sums(x)};
    Rows heads(x.rows, p.num_heads * p.value_head_dim);
    for (Index i = 0; i < x.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h) attend(all, i, h, heads.row(i) + h * p.value_head_dim);
    const Rows y = weights_.project("o", heads.view());
    for (Index i = 0; i < x.rows; ++i) std::copy_n(y.row(i), y.cols, output.row(i));
  }

 private:
  struct Prepared {
    ProjectionTwin::Rows rows;
    Rows w, beta;  // [tokens, num_kv_heads * head_dim], [tokens, num_kv_heads]
    Rows log_f;    // [tokens, num_heads] sums of log decays, or zeros
  };

  Rows directions(View<const double> x) const {
    Rows w = s_.w_rank > 0 ? weights_.project("w", weights_.project("w_down", x).view())
                           : weights_.project("w", x);
    if (s_.conv > 0) {
      w = weights_.convolve("w_conv", w);
      reference::map(w, reference::silu);
    }
    reference::l2_normalise(w, s_.projection.head_dim, 1e-6);
    return w;
  }

  Rows strengths(View<const double> x) const {
    Rows beta = weights_.project("beta", x);
    for (Index t = 0; t < beta.rows; ++t)
      for (Index h = 0; h < beta.cols; ++h)
        beta(t, h) = 2 * reference::sigmoid(beta(t, h) + weights_.at("beta_bias", h));
    return beta;
  }

  Rows decay_sums(View<const double> x) const {
    if (!s_.forget_gate) return Rows(x.rows, s_.projection.num_heads);
    Rows sums = weights_.project("forget", x);
    for (Index t = 0; t < sums.rows; ++t)
      for (Index h = 0; h < sums.cols; ++h)
        sums(t, h) =
            reference::log_sigmoid(sums(t, h) + weights_.at("forget_bias", h)) + (t > 0 ? sums(t - 1, h) : 0);
    return sums;
  }

  // The query goes back token by token: q <- (I - beta_j w_j w_j') q behind its meeting with key j.
  void attend(const Prepared& all, Index i, Index h, double* out) const {
    const ProjectionSettings& p = s_.projection;
    const Index kv = h / p.group(), d = p.head_dim;
    const double* query = all.rows.q.data() + (i * p.num_heads + h) * d;
    std::vector<double> q(query, query + d), s(static_cast<std::size_t>(i) + 1);
    for (Index j = i; j >= 0; --j) {
      const double* k = all.rows.k.data() + (j * p.num_kv_heads + kv) * d;
      const double* w = all.w.row(j) + kv * d;
      s[static_cast<std::size_t>(j)] =
          s_.scale * (std::inner_product(q.begin(), q.end(), k, 0.0) + all.log_f(i, h) - all.log_f(j, h));
      const double along = all.beta(j, kv) * std::inner_product(q.begin(), q.end(), w, 0.0);
      for (Index c = 0; c < d; ++c) q[static_cast<std::size_t>(c)] -= along * w[c];
    }
    const double maximum = *std::max_element(s.begin(), s.end());
    double mass = 0;
    for (double& value : s) mass += value = std::exp(value - maximum);
    for (Index j = 0; j <= i; ++j)
      for (Index c = 0; c < p.value_head_dim; ++c)
        out[c] += s[static_cast<std::size_t>(j)] / mass *
                  all.rows.v[static_cast<std::size_t>((j * p.num_kv_heads + kv) * p.value_head_dim + c)];
  }

  PathAttentionSettings s_;
  ProjectionTwin projection_;
  reference::Weights weights_;
};

}  // namespace

std::shared_ptr<Twin> make_path_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<PathAttentionTwin>(read_path_attention(config), parameters);
}

}  // namespace plait
