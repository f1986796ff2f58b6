#include "layers/reference/polynomial_attention.h"

#include <algorithm>
#include <cmath>

namespace plait {
namespace {

using Settings = PolynomialAttentionSettings;

void read_weights(Config& config, Settings& s) {
  s.degree = config.integer("degree", "power p of q.k, 1 to 4");
  if (s.degree > 4) config.refuse("degree is ", s.degree, ", but it must be 1, 2, 3 or 4");
  s.logit_scale =
      config.number_or("logit_scale", 0, "factor on q.k before the power; 0 = 1 / sqrt(head_dim)");
  if (s.logit_scale == 0) s.logit_scale = 1 / std::sqrt(static_cast<double>(s.projection.head_dim));
  s.decay = static_cast<Settings::Decay>(
      config.choice("decay", {"none", "scalar"}, "forgetting: none, or a log decay per head from the input"));
  s.decay_temperature =
      config.number_or("decay_temperature", s.decay_temperature, "divides the log decay; greater = slower");
  if (s.decay_temperature <= 0)
    config.refuse("decay_temperature is ", s.decay_temperature, ", but it must be positive");
}

void read_readout(Config& config, Settings& s) {
  s.denominator = static_cast<Settings::Denominator>(config.choice(
      "denominator", {"none", "sum", "one_plus_sum"}, "what the weighted values are divided by"));
  s.eps = config.number_or("eps", s.eps, "added to the denominator `sum`", 0);
  s.scale_mode = static_cast<Settings::ScaleMode>(
      config.choice("scale_mode", {"fixed", "row"},
                    "without denominator: factor c, or 1 / sqrt(position + 1); UNCONFIRMED"));
  const double c =
      config.number_or("c", 1, "the fixed factor; UNCONFIRMED where rows see different numbers of keys");
  s.c = config.numbers_or("c_per_head", {}, "in place of c, one number per query head; UNCONFIRMED");
  const bool per_head = !s.c.empty();
  if (per_head && c != 1) config.refuse("c is ", c, ", but c_per_head stands in its place");
  if (per_head && std::ssize(s.c) != s.projection.num_heads)
    config.refuse("c_per_head has ", s.c.size(), " numbers, but num_heads is ", s.projection.num_heads);
  if (!per_head) s.c = {c};
  if (s.denominator != Settings::Denominator::none) {
    if (s.degree % 2 != 0)
      config.refuse("degree ", s.degree,
                    " is odd, so its weights may be negative and cannot be normalised; "
                    "denominator must be none");
    if (s.scale_mode != Settings::ScaleMode::fixed || per_head || c != 1)
      config.refuse("scale_mode, c and c_per_head scale the output only when denominator is none");
  }
  if (s.scale_mode == Settings::ScaleMode::row && (per_head || c != 1))
    config.refuse(per_head ? "c_per_head" : "c", " is set, but scale_mode row has no such factor");
}

}  // namespace

PolynomialAttentionSettings read_polynomial_attention(Config& config) {
  Settings s;
  s.projection = read_projection(config);
  read_weights(config, s);
  read_readout(config, s);
  s.gate = static_cast<Settings::Gate>(config.choice(
      "gate", {"none", "sigmoid"}, "factor on every column of a head's output; sigmoid: sigmoid_gate"));
  s.gate_bias = config.boolean_or("gate_bias", false, "bias on the gate's logits");
  if (s.gate_bias && s.gate == Settings::Gate::none)
    config.refuse("gate_bias means nothing while gate is none");
  s.evaluation = static_cast<Settings::Evaluation>(
      config.choice("evaluation", {"recurrent", "quadratic"},
                    "a state of constant size, or a cache of keys and values; equal up to rounding"));
  config.finish();
  return s;
}

std::vector<TensorSpec> polynomial_attention_tensors(const PolynomialAttentionSettings& s) {
  const ProjectionSettings& p = s.projection;
  const Index heads = p.num_heads * p.value_head_dim;
  std::vector<TensorSpec> specs = projection_tensors(p);
  specs.push_back({"o", {p.width, heads}, Init::normal, "[width, num_heads * value_head_dim]", true});
  if (s.decay != Settings::Decay::none) {
    const std::string text = s.decay == Settings::Decay::scalar ? "num_heads" : "num_kv_heads";
    specs.push_back({"decay", {s.decays(), p.width}, Init::normal, "[" + text + ", width]", true});
    specs.push_back({"decay_bias", {s.decays()}, Init::small, "[" + text + "]"});
  }
  if (s.output_bias) specs.push_back({"o_bias", {p.width}, Init::small, "[width]"});
  if (s.gate == Settings::Gate::sigmoid)
    specs.push_back({"gate", {heads, p.width}, Init::normal, "[num_heads * value_head_dim, width]", true});
  if (s.gate_bias) specs.push_back({"gate_bias", {heads}, Init::small, "[num_heads * value_head_dim]"});
  return specs;
}

namespace {

class PolynomialAttentionTwin final : public Twin {
 public:
  PolynomialAttentionTwin(const Settings& settings, const Parameters& parameters)
      : settings_(settings),
        projection_(settings.projection, parameters),
        o_(to_double(parameters.tensor("o"))),
        decay_(optional_tensor(parameters, "decay")),
        decay_bias_(optional_tensor(parameters, "decay_bias")),
        gate_(optional_tensor(parameters, "gate")),
        gate_bias_(optional_tensor(parameters, "gate_bias")) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const ProjectionSettings& p = settings_.projection;
    const View<const double> x = inputs[0];
    const ProjectionTwin::Rows rows = projection_.run(x);
    const std::vector<double> decays = log_decays(x);
    std::vector<double> heads(static_cast<std::size_t>(x.rows * p.num_heads * p.value_head_dim));
    for (Index i = 0; i < x.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h)
        attend(rows, decays, i, h, heads.data() + (i * p.num_heads + h) * p.value_head_dim);
    if (!gate_.empty()) {
      const std::vector<double> gate = project(x, gate_, gate_bias_, p.num_heads * p.value_head_dim);
      for (std::size_t i = 0; i < heads.size(); ++i) heads[i] /= 1 + std::exp(-gate[i]);
    }
    const View<const double> all(heads.data(), x.rows, p.num_heads * p.value_head_dim);
    const std::vector<double> y = project(all, o_, {}, p.width);
    for (Index i = 0; i < x.rows; ++i) std::copy_n(y.data() + i * p.width, p.width, output.row(i));
  }

 private:
  // g [tokens, num_heads] = logsigmoid(decay x + bias) / temperature; zeros without decay
  std::vector<double> log_decays(View<const double> x) const {
    const Index heads = settings_.projection.num_heads;
    if (decay_.empty()) return std::vector<double>(static_cast<std::size_t>(x.rows * heads));
    std::vector<double> g = project(x, decay_, decay_bias_, heads);
    for (double& value : g) {
      const double log_sigmoid = std::min(value, 0.0) - std::log1p(std::exp(-std::abs(value)));
      value = log_sigmoid / settings_.decay_temperature;
    }
    return g;
  }

  // The quadratic formula of one row and head, newest key first so that the decay is a running sum. out
  // [value_head_dim]
  void attend(const ProjectionTwin::Rows& rows, const std::vector<double>& decays, Index i, Index h,
              double* out) const {
    const ProjectionSettings& p = settings_.projection;
    const Index kv = h / p.group(), d = p.head_dim, dv = p.value_head_dim;
    const double* q = rows.q.data() + (i * p.num_heads + h) * d;
    double sum = 0, log_decay = 0;
    for (Index j = i; j >= 0; --j) {
      const double* k = rows.k.data() + (j * p.num_kv_heads + kv) * d;
      const double* v = rows.v.data() + (j * p.num_kv_heads + kv) * dv;
      double dot = 0;
      for (Index c = 0; c < d; ++c) dot += q[c] * k[c];
      const double weight =
          std::pow(settings_.logit_scale * dot, static_cast<int>(settings_.degree)) * std::exp(log_decay);
      sum += weight;
      for (Index c = 0; c < dv; ++c) out[c] += weight * v[c];
      log_decay += decays[static_cast<std::size_t>(j * p.num_heads + h)];
    }
    for (Index c = 0; c < dv; ++c) out[c] *= factor(i, h, sum);
  }

  double factor(Index position, Index head, double sum) const {
    switch (settings_.denominator) {
      case Settings::Denominator::none:
        return settings_.scale_mode == Settings::ScaleMode::fixed
                   ? settings_.c[settings_.c.size() == 1 ? 0 : static_cast<std::size_t>(head)]
                   : 1 / std::sqrt(static_cast<double>(position + 1));
      case Settings::Denominator::sum:
        return settings_.eps + sum == 0 ? 0 : 1 / (settings_.eps + sum);
      case Settings::Denominator::one_plus_sum:
        return 1 / (1 + sum);
    }
    return 0;
  }

  Settings settings_;
  ProjectionTwin projection_;
  std::vector<double> o_, decay_, decay_bias_, gate_, gate_bias_;
};

}  // namespace

std::shared_ptr<Twin> make_polynomial_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<PolynomialAttentionTwin>(read_polynomial_attention(config), parameters);
}

}  // namespace plait
