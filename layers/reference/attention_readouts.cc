#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/reference/attention_options.h"
#include "layers/reference/projection.h"
#include "layers/reference/recurrence.h"

namespace plait {
namespace {

SelfAdjustSoftmax read_self_adjust(Config& config) {
  Config& own = config.section("self_adjust_softmax", "weights times their logits (arXiv 2502.18277)");
  SelfAdjustSoftmax s;
  s.variant = static_cast<SelfAdjustSoftmax::Variant>(own.choice(
      "variant", {"normalised", "plain", "shifted"},
      "factor on a weight: the logit's place between the row's least and greatest, the logit, or the "
      "logit less the least (UNCONFIRMED)"));
  if (s.variant == SelfAdjustSoftmax::Variant::normalised) {
    s.c_num = own.number_or("c_num", 0, "added to the numerator", 0);
    s.c_den = own.number_or("c_den", 2e-10, "added to the denominator");
    if (!(s.c_den > 0)) own.refuse("c_den is ", s.c_den, ", but must be positive");
  }
  return s;
}

AffineScaledAttention read_affine(Config& config) {
  Config& own =
      config.section("affine_scaled_attention", "weights scaled and shifted per token (arXiv 2602.23057)");
  AffineScaledAttention s;
  s.gate = static_cast<AffineScaledAttention::Gate>(
      own.choice("gate", {"sigmoid", "clipped_linear"},
                 "alpha of W x: sigmoid, or W x within 0 and 1; which is the paper's is UNCONFIRMED"));
  s.bias = own.boolean_or("bias", false, "adds a learned number to W x; UNCONFIRMED");
  return s;
}

DifferentialAttention read_differential(Config& config) {
  Config& own =
      config.section("differential_attention", "difference of two maps (arXiv 2410.05258; version 2)");
  DifferentialAttention s;
  s.version = own.integer_or("version", 2,
                             "1: a lambda per layer and a norm per head; 2: a lambda per token and head", 1);
  if (s.version > 2) own.refuse("version is ", s.version, "; there are 1 and 2");
  if (s.version == 2) return s;
  const Index layer = own.integer_or("layer_index", 0, "from 0; sets lambda_init");
  s.lambda_init = own.number_or("lambda_init", 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(layer)),
                                "part of lambda that is not learned; 0.8 - 0.6 e^(-0.3 layer_index)");
  s.eps = own.number_or("eps", 1e-5, "of the norm per head", 0);
  return s;
}

bool is_softmax(const NormaliserOption& option) {
  const auto* softmax = std::get_if<Softmax>(&option);
  return softmax && softmax->sink == Softmax::Sink::none;
}

}  // namespace

ReadoutOption read_readout(Config& config, const std::vector<ScoreOption>& scores,
                           const NormaliserOption& normaliser) {
  const int choice =
      config.choice("readout",
                    {"mean", "self_adjust_softmax", "affine_scaled_attention", "differential_attention",
                     "bayes_softmax", "parallax_attention", "laser_attention"},
                    "what is made of the weighted values; the formula of bayes_softmax is UNCONFIRMED");
  const auto need_softmax = [&](const char* sentence) {
    if (!is_softmax(normaliser)) config.refuse(sentence);
  };
  const bool softermax = std::holds_alternative<Softermax>(normaliser);
  switch (choice) {
    case 1:
      need_softmax("readout self_adjust_softmax needs the weights and greatest logit of normaliser softmax");
      return read_self_adjust(config);
    case 2:
      if (!softermax)
        need_softmax(
            "readout affine_scaled_attention needs weights that sum to 1: normaliser softmax or softermax");
      return read_affine(config);
    case 3:
      if (!softermax && !std::holds_alternative<Softmax>(normaliser))
        config.refuse(
            "readout differential_attention needs a normaliser with a running maximum: softmax, with "
            "sinks or without, or softermax");
      return read_differential(config);
    case 4:
      need_softmax(
          "readout bayes_softmax needs weights that sum to 1 and their denominator: normaliser softmax");
      return BayesSoftmax{};
    case 5:
      need_softmax("readout parallax_attention needs weights that sum to 1: normaliser softmax");
      if (!std::holds_alternative<ScaledDot>(scores.front()) &&
          !std::holds_alternative<IntegralAttention>(scores.front()))
        config.refuse(
            "readout parallax_attention has a second query of head_dim channels: score scaled_dot or "
            "integral_attention comes first");
      return ParallaxAttention{};
    case 6:
      need_softmax("readout laser_attention needs weights that sum to 1: normaliser softmax");
      for (const ScoreOption& score : scores)
        if (std::holds_alternative<ForgettingAttention>(score))
          config.refuse(
              "readout laser_attention and score forgetting_attention both want the side column of the keys");
      return LaserAttention{};
    default:
      return MeanReadout{};
  }
}

double log_sum_exp(const std::vector<double>& s) {
  const double greatest = *std::max_element(s.begin(), s.end());
  double sum = 0;
  for (const double x : s) sum += std::exp(x - greatest);
  return greatest + std::log(sum);
}

Index output_heads(const ReadoutOption& option, Index num_heads) {
  if (std::holds_alternative<DifferentialAttention>(option)) return num_heads / 2;
  return std::holds_alternative<BayesSoftmax>(option) ? 1 : num_heads;
}

std::vector<TensorSpec> tensors_of(const ReadoutOption& option, const ProjectionSettings& shape) {
  if (std::holds_alternative<ParallaxAttention>(option)) {
    const Index rows = shape.num_heads * shape.head_dim;
    std::vector<TensorSpec> specs = norm_tensors(shape, "r", shape.num_heads, "[num_heads * head_dim]");
    specs.push_back({"r", {rows, shape.width}, Init::normal, "[num_heads * head_dim, width]", true});
    if (shape.bias) specs.push_back({"r_bias", {rows}, Init::small, "[num_heads * head_dim]"});
    return specs;
  }
  if (std::holds_alternative<BayesSoftmax>(option))
    return {{"head_bias", {shape.num_heads}, Init::small, "[num_heads]"}};
  if (const auto* differential = std::get_if<DifferentialAttention>(&option)) {
    if (differential->version == 2)
      return {{"lambda", {shape.num_heads / 2, shape.width}, Init::normal, "[num_heads / 2, width]", true}};
    std::vector<TensorSpec> specs;
    for (const char* name : {"lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"})
      specs.push_back({name, {shape.head_dim}, Init::small, "[head_dim]"});
    specs.push_back({"head_norm", {shape.value_head_dim}, Init::around_one, "[value_head_dim]"});
    return specs;
  }
  const auto* affine = std::get_if<AffineScaledAttention>(&option);
  if (!affine) return {};
  std::vector<TensorSpec> specs = {
      {"affine_alpha", {shape.num_heads, shape.width}, Init::normal, "[num_heads, width]", true},
      {"affine_alpha_ma", {shape.num_heads}, Init::around_one, "[num_heads]"}};
  if (affine->bias) specs.push_back({"affine_alpha_bias", {shape.num_heads}, Init::small, "[num_heads]"});
  return specs;
}

namespace {

void add_weighted(const TwinRow& row, const std::vector<double>& w, double* out, Index width) {
  for (std::size_t n = 0; n < w.size(); ++n)
    for (Index c = 0; c < width; ++c) out[c] += w[n] * row.values[n][c];
}

class MeanTwin final : public ReadoutTwin {
 public:
  void read(const TwinRow& row, const std::vector<double>&, const std::vector<double>&,
            const std::vector<double>& p, double* out, Index width) const override {
    add_weighted(row, p, out, width);
  }
};

class SelfAdjustTwin final : public ReadoutTwin {
 public:
  explicit SelfAdjustTwin(const SelfAdjustSoftmax& settings) : s_(settings) {}

  void read(const TwinRow& row, const std::vector<double>&, const std::vector<double>& s,
            const std::vector<double>& p, double* out, Index width) const override {
    const auto [least, greatest] = std::minmax_element(s.begin(), s.end());
    const double low = std::min(0.0, *least), high = std::max(0.0, *greatest);
    std::vector<double> w = p;
    for (std::size_t n = 0; n < w.size(); ++n) {
      if (s_.variant == SelfAdjustSoftmax::Variant::plain) w[n] *= s[n];
      if (s_.variant == SelfAdjustSoftmax::Variant::shifted) w[n] *= s[n] - *least;
      if (s_.variant == SelfAdjustSoftmax::Variant::normalised)
        w[n] *= (s[n] - low + s_.c_num) / (high - low + s_.c_den);
    }
    add_weighted(row, w, out, width);
  }

 private:
  SelfAdjustSoftmax s_;
};

class AffineTwin final : public ReadoutTwin {
 public:
  AffineTwin(const AffineScaledAttention& settings, const ProjectionSettings& shape,
             const Parameters& parameters)
      : s_(settings),
        heads_(shape.num_heads),
        weight_(to_double(parameters.tensor("affine_alpha"))),
        bias_(optional_tensor(parameters, "affine_alpha_bias")),
        average_(to_double(parameters.tensor("affine_alpha_ma"))) {}

  // alpha [tokens, num_heads]
  std::vector<double> prepare(View<const double> x) const override {
    std::vector<double> alpha = project(x, weight_, bias_, heads_);
    for (double& a : alpha)
      a = s_.gate == AffineScaledAttention::Gate::sigmoid ? reference::sigmoid(a) : std::clamp(a, 0.0, 1.0);
    return alpha;
  }

  void read(const TwinRow& row, const std::vector<double>& alphas, const std::vector<double>&,
            const std::vector<double>& p, double* out, Index width) const override {
    const double alpha = alphas[static_cast<std::size_t>(row.position * heads_ + row.head)];
    const double beta = (average_[static_cast<std::size_t>(row.head)] - alpha) / row.count();
    std::vector<double> w = p;
    for (double& x : w) x = alpha * x + beta;
    add_weighted(row, w, out, width);
  }

 private:
  AffineScaledAttention s_;
  Index heads_;
  std::vector<double> weight_, bias_, average_;
};

// The mean less the covariance of the second logits with the values.
class ParallaxTwin final : public ReadoutTwin {
 public:
  ParallaxTwin(const ProjectionSettings& shape, const Parameters& parameters)
      : heads_(shape.num_heads),
        width_(shape.head_dim),
        shape_(shape),
        weight_(to_double(parameters.tensor("r"))),
        bias_(optional_tensor(parameters, "r_bias")),
        gain_(optional_tensor(parameters, "r_norm")),
        norm_bias_(optional_tensor(parameters, "r_norm_bias")) {}

  // r [tokens, num_heads * head_dim], normed and turned like the queries
  std::vector<double> prepare(View<const double> x) const override {
    std::vector<double> r = project(x, weight_, bias_, heads_ * width_);
    norm_and_rotate(shape_, x.rows, heads_, gain_, norm_bias_, r);
    return r;
  }

  void read(const TwinRow& row, const std::vector<double>& prepared, const std::vector<double>&,
            const std::vector<double>& p, double* out, Index width) const override {
    const double* r = prepared.data() + (row.position * heads_ + row.head) * width_;
    std::vector<double> second(p.size());
    double mean = 0;
    for (std::size_t n = 0; n < p.size(); ++n) {
      for (Index c = 0; c < width_; ++c) second[n] += r[c] * row.vectors[n][c];
      mean += p[n] * second[n];
    }
    std::vector<double> w = p;
    for (std::size_t n = 0; n < p.size(); ++n) w[n] *= 1 + mean - second[n];
    add_weighted(row, w, out, width);
  }

 private:
  Index heads_, width_;
  ProjectionSettings shape_;
  std::vector<double> weight_, bias_, gain_, norm_bias_;
};

// ln of the mean of e^v, per channel.
class LaserTwin final : public ReadoutTwin {
 public:
  void read(const TwinRow& row, const std::vector<double>&, const std::vector<double>& s,
            const std::vector<double>&, double* out, Index width) const override {
    const double all = log_sum_exp(s);
    for (Index c = 0; c < width; ++c) {
      std::vector<double> moved = s;
      for (std::size_t n = 0; n < s.size(); ++n) moved[n] += row.values[n][c];
      out[c] = log_sum_exp(moved) - all;
    }
  }
};

class DifferentialTwin final : public HeadMixTwin {
 public:
  DifferentialTwin(const DifferentialAttention& settings, const ProjectionSettings& shape,
                   const Parameters& parameters)
      : s_(settings), heads_(shape.num_heads / 2), weight_(optional_tensor(parameters, "lambda")) {
    if (s_.version == 2) return;
    const auto dot = [&](const char* a, const char* b) {
      const std::vector<double> x = to_double(parameters.tensor(a)), y = to_double(parameters.tensor(b));
      return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
    };
    lambda_ =
        std::exp(dot("lambda_q1", "lambda_k1")) - std::exp(dot("lambda_q2", "lambda_k2")) + s_.lambda_init;
    norm_ = to_double(parameters.tensor("head_norm"));
  }

  // Version 2: the gates [tokens, heads]
  std::vector<double> prepare(View<const double> x) const override {
    if (s_.version == 1) return {};
    std::vector<double> gates = project(x, weight_, {}, heads_);
    for (double& g : gates) g = reference::sigmoid(g);
    return gates;
  }

  void mix(Index position, const std::vector<double>& gates, const double* attn, const double*, Index width,
           double* out) const override {
    for (Index h = 0; h < heads_; ++h, attn += 2 * width, out += width) {
      const double factor =
          s_.version == 1 ? lambda_ : gates[static_cast<std::size_t>(position * heads_ + h)];
      double squares = 0;
      for (Index c = 0; c < width; ++c) {
        out[c] = attn[c] - factor * attn[width + c];
        squares += out[c] * out[c];
      }
      if (s_.version == 2) continue;
      const double norm = (1 - s_.lambda_init) / std::sqrt(squares / static_cast<double>(width) + s_.eps);
      for (Index c = 0; c < width; ++c) out[c] *= norm * norm_[static_cast<std::size_t>(c)];
    }
  }

 private:
  DifferentialAttention s_;
  Index heads_;
  std::vector<double> weight_, norm_;
  double lambda_ = 0;
};

// One softmax over heads and keys together.
class BayesTwin final : public HeadMixTwin {
 public:
  explicit BayesTwin(std::vector<double> bias) : bias_(std::move(bias)) {}

  void mix(Index, const std::vector<double>&, const double* attn, const double* lse, Index width,
           double* out) const override {
    double greatest = lse[0] + bias_[0], mass = 0;
    for (std::size_t h = 0; h < bias_.size(); ++h) greatest = std::max(greatest, lse[h] + bias_[h]);
    for (std::size_t h = 0; h < bias_.size(); ++h) mass += std::exp(lse[h] + bias_[h] - greatest);
    for (std::size_t h = 0; h < bias_.size(); ++h, attn += width)
      for (Index c = 0; c < width; ++c) out[c] += std::exp(lse[h] + bias_[h] - greatest) / mass * attn[c];
  }

 private:
  std::vector<double> bias_;  // [num_heads]
};

}  // namespace

std::unique_ptr<HeadMixTwin> make_mix_twin(const ReadoutOption& option, const ProjectionSettings& shape,
                                           const Parameters& parameters) {
  if (const auto* o = std::get_if<DifferentialAttention>(&option))
    return std::make_unique<DifferentialTwin>(*o, shape, parameters);
  if (std::holds_alternative<BayesSoftmax>(option))
    return std::make_unique<BayesTwin>(to_double(parameters.tensor("head_bias")));
  return nullptr;
}

std::unique_ptr<ReadoutTwin> make_twin(const ReadoutOption& option, const ProjectionSettings& shape,
                                       const Parameters& parameters) {
  if (const auto* o = std::get_if<SelfAdjustSoftmax>(&option)) return std::make_unique<SelfAdjustTwin>(*o);
  if (std::holds_alternative<LaserAttention>(option)) return std::make_unique<LaserTwin>();
  if (std::holds_alternative<ParallaxAttention>(option))
    return std::make_unique<ParallaxTwin>(shape, parameters);
  if (const auto* o = std::get_if<AffineScaledAttention>(&option))
    return std::make_unique<AffineTwin>(*o, shape, parameters);
  return std::make_unique<MeanTwin>();
}

}  // namespace plait
