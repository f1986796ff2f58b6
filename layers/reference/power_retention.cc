#include "layers/reference/power_retention.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/recurrence.h"

namespace plait {

PolynomialAttentionSettings read_power_retention(Config& config) {
  using Settings = PolynomialAttentionSettings;
  Settings s;
  s.projection = read_projection(config);
  s.projection.bias = s.output_bias = config.boolean_or("bias", true, "of the four projections");
  s.degree = config.integer_or("degree", 2, "power of |q.k|, 2 or 4");
  if (s.degree != 2 && s.degree != 4) config.refuse("degree is ", s.degree, ", but it must be 2 or 4");
  s.logit_scale = config.number_or(
      "logit_scale", 0, "factor on q.k before the power; 0 = 1 / sqrt(head_dim); UNCONFIRMED default");
  if (s.logit_scale == 0) s.logit_scale = 1 / std::sqrt(static_cast<double>(s.projection.head_dim));
  s.grid =
      config.integer_or("switch_over_seq_len", 512, "tokens kept as they are before the state takes them", 1);
  s.offset = config.number_or("log_eps", 1e-7, "added to |q.k|, scaled, of the tokens kept", 0);
  s.relative_eps =
      config.number_or("sum_eps", 1e-6, "added to the sum of weights, in units of the largest kept one", 0);
  s.output_norm = config.boolean_or("output_norm", s.output_norm,
                                    "layer norm of each head's output, without parameters; UNCONFIRMED");
  s.denominator = Settings::Denominator::sum;
  s.eps = 0;
  s.decay = Settings::Decay::grouped;
  s.decay_temperature = 1;
  config.finish();
  return s;
}

namespace {

class PowerRetentionTwin final : public Twin {
 public:
  PowerRetentionTwin(const PolynomialAttentionSettings& settings, const Parameters& parameters)
      : s_(settings), projection_(settings.projection, parameters), weights_(parameters) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const ProjectionSettings& p = s_.projection;
    const View<const double> x = inputs[0];
    const ProjectionTwin::Rows rows = projection_.run(x);
    reference::Rows log_g = weights_.project("decay", x);
    for (Index t = 0; t < x.rows; ++t)
      for (Index kv = 0; kv < log_g.cols; ++kv)
        log_g(t, kv) = reference::log_sigmoid(log_g(t, kv) + weights_.at("decay_bias", kv));
    reference::Rows o(x.rows, p.num_heads * p.value_head_dim);
    for (Index i = 0; i < x.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h) attend(rows, log_g, i, h, o.row(i) + h * p.value_head_dim);
    if (s_.output_norm) {
      const double one = 1, zero = 0;
      reference::layer_normalise(o, p.value_head_dim, 1e-5, {&one, 1}, {&zero, 1});
    }
    const reference::Rows y = weights_.project("o", o.view());
    for (Index i = 0; i < y.rows; ++i)
      for (Index c = 0; c < y.cols; ++c)
        output(i, c) = y(i, c) + (s_.output_bias ? weights_.at("o_bias", c) : 0);
  }

 private:
  // The direct sum of one row and head, newest key first. Keys since the last multiple of the grid have the
  // weights of the quadratic formula, those before it the weights of the state.
  void attend(const ProjectionTwin::Rows& rows, const reference::Rows& log_g, Index i, Index h,
              double* o) const {
    const ProjectionSettings& p = s_.projection;
    const Index kv = h / p.group(), d = p.head_dim, dv = p.value_head_dim, kept = i / s_.grid * s_.grid;
    const double* q = rows.q.data() + (i * p.num_heads + h) * d;
    const double power = static_cast<double>(s_.degree);
    double sum = 0, largest = 0, log_decay = 0;
    for (Index j = i; j >= 0; --j) {
      const double* k = rows.k.data() + (j * p.num_kv_heads + kv) * d;
      const double* v = rows.v.data() + (j * p.num_kv_heads + kv) * dv;
      double dot = 0;
      for (Index c = 0; c < d; ++c) dot += q[c] * k[c];
      const double size = std::abs(dot) * s_.logit_scale + (j >= kept ? s_.offset : 0);
      const double weight = std::pow(size, power) * std::exp(log_decay);
      if (j >= kept) largest = std::max(largest, weight);
      sum += weight;
      for (Index c = 0; c < dv; ++c) o[c] += weight * v[c];
      log_decay += log_g(j, kv);
    }
    const double divisor = sum + s_.relative_eps * largest;
    for (Index c = 0; divisor > 0 && c < dv; ++c) o[c] /= divisor;
  }

  PolynomialAttentionSettings s_;
  ProjectionTwin projection_;
  reference::Weights weights_;
};

}  // namespace

std::shared_ptr<Twin> make_power_retention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<PowerRetentionTwin>(read_power_retention(config), parameters);
}

}  // namespace plait
