#include "layers/reference/sinkhorn_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/reference/attention_options.h"

namespace plait {

SinkhornAttentionSettings read_sinkhorn_attention(Config& config) {
  SinkhornAttentionSettings s;
  s.projection = read_projection(config);
  s.projection.bias = config.boolean_or("bias", false, "biases on queries, keys and values");
  s.scale = config.number_or("scale", 0, "factor on q.k; 0 = 1 / sqrt(head_dim)");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.projection.head_dim));
  s.max_iter = config.integer_or("max_iter", s.max_iter,
                                 "half steps, rows first: an odd number leaves rows that sum to 1", 1);
  s.output_bias = config.boolean_or("output_bias", false, "bias on the output projection");
  config.finish();
  return s;
}

std::vector<TensorSpec> sinkhorn_attention_tensors(const SinkhornAttentionSettings& s) {
  const ProjectionSettings& p = s.projection;
  std::vector<TensorSpec> specs = projection_tensors(p);
  specs.push_back({"o",
                   {p.width, p.num_heads * p.value_head_dim},
                   Init::normal,
                   "[width, num_heads * value_head_dim]",
                   true});
  if (s.output_bias) specs.push_back({"o_bias", {p.width}, Init::small, "[width]"});
  return specs;
}

std::vector<double> reference::sinkhorn_weights(std::vector<double> logits, Index n, Index max_iter) {
  const auto at = [n](Index i, Index j) { return static_cast<std::size_t>(i * n + j); };
  const double log_marginal = -std::log(static_cast<double>(n));
  std::vector<double> u(static_cast<std::size_t>(n), 0.0), v = u;
  for (Index it = 0; it < max_iter; ++it) {
    const bool rows = it % 2 == 0;
    std::vector<double>& potential = rows ? u : v;
    for (Index i = 0; i < n; ++i) {
      std::vector<double> line;
      for (Index j = 0; j < n; ++j) {
        const Index row = rows ? i : j, column = rows ? j : i;
        line.push_back(logits[at(row, column)] + u[static_cast<std::size_t>(row)] +
                       v[static_cast<std::size_t>(column)]);
      }
      potential[static_cast<std::size_t>(i)] += log_marginal - log_sum_exp(line);
    }
  }
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j)
      logits[at(i, j)] = static_cast<double>(n) * std::exp(logits[at(i, j)] + u[static_cast<std::size_t>(i)] +
                                                           v[static_cast<std::size_t>(j)]);
  return logits;
}

namespace {

class SinkhornAttentionTwin final : public Twin {
 public:
  SinkhornAttentionTwin(const SinkhornAttentionSettings& settings, const Parameters& parameters)
      : settings_(settings),
        projection_(settings.projection, parameters),
        o_(to_double(parameters.tensor("o"))),
        o_bias_(optional_tensor(parameters, "o_bias")) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const ProjectionSettings& p = settings_.projection;
    const View<const double> x = inputs[0];
    const ProjectionTwin::Rows rows = projection_.run(x);
    const Index columns = p.num_heads * p.value_head_dim;
    std::vector<double> heads(static_cast<std::size_t>(x.rows * columns));
    for (Index h = 0; h < p.num_heads; ++h) attend(rows, h, x.rows, heads.data() + h * p.value_head_dim);
    const std::vector<double> y = project({heads.data(), x.rows, columns}, o_, o_bias_, p.width);
    for (Index i = 0; i < x.rows; ++i) std::copy_n(y.data() + i * p.width, p.width, output.row(i));
  }

 private:
  // out: the head's columns of the first row
  void attend(const ProjectionTwin::Rows& rows, Index h, Index n, double* out) const {
    const ProjectionSettings& p = settings_.projection;
    const Index kv = h / p.group(), d = p.head_dim, dv = p.value_head_dim;
    std::vector<double> logits;
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < n; ++j) {
        const double* q = rows.q.data() + (i * p.num_heads + h) * d;
        const double* k = rows.k.data() + (j * p.num_kv_heads + kv) * d;
        logits.push_back(settings_.scale * std::inner_product(q, q + d, k, 0.0));
      }
    const std::vector<double> weights = reference::sinkhorn_weights(logits, n, settings_.max_iter);
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < n; ++j)
        for (Index c = 0; c < dv; ++c)
          out[i * p.num_heads * dv + c] +=
              weights[static_cast<std::size_t>(i * n + j)] *
              rows.v[static_cast<std::size_t>((j * p.num_kv_heads + kv) * dv + c)];
  }

  SinkhornAttentionSettings settings_;
  ProjectionTwin projection_;
  std::vector<double> o_, o_bias_;
};

}  // namespace

std::shared_ptr<Twin> make_sinkhorn_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<SinkhornAttentionTwin>(read_sinkhorn_attention(config), parameters);
}

}  // namespace plait
