#include <algorithm>
#include <cmath>

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
    s.c_num = own.number_or("c_num", 0, "added to the numerator");
    s.c_den = own.number_or("c_den", 2e-10, "added to the denominator");
  }
  return s;
}

AffineScaledAttention read_affine(Config& config) {
  Config& own =
      config.section("affine_scaled_attention", "weights scaled and shifted per token (arXiv 2602.23057)");
  return {static_cast<AffineScaledAttention::Gate>(
      own.choice("gate", {"sigmoid", "clipped_linear"},
                 "alpha of W x: sigmoid, or W x within 0 and 1; which is the paper's is UNCONFIRMED"))};
}

bool is_softmax(const NormaliserOption& option) {
  const auto* softmax = std::get_if<Softmax>(&option);
  return softmax && softmax->sink == Softmax::Sink::none;
}

}  // namespace

ReadoutOption read_readout(Config& config, const NormaliserOption& normaliser) {
  const int choice = config.choice("readout", {"mean", "self_adjust_softmax", "affine_scaled_attention"},
                                   "what is made of the weighted values");
  if (choice == 0) return MeanReadout{};
  if (choice == 1 && !is_softmax(normaliser))
    config.refuse("readout self_adjust_softmax needs the weights and greatest logit of normaliser softmax");
  if (choice == 2 && !is_softmax(normaliser) && !std::holds_alternative<Softermax>(normaliser))
    config.refuse(
        "readout affine_scaled_attention needs weights that sum to 1: normaliser softmax or softermax");
  if (choice == 1) return read_self_adjust(config);
  return read_affine(config);
}

std::vector<TensorSpec> tensors_of(const ReadoutOption& option, const AttentionShape& shape) {
  if (!std::holds_alternative<AffineScaledAttention>(option)) return {};
  return {{"affine_alpha", {shape.num_heads, shape.width}, Init::normal, "[num_heads, width]", true},
          {"affine_alpha_ma", {shape.num_heads}, Init::around_one, "[num_heads]"}};
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
  AffineTwin(const AffineScaledAttention& settings, const AttentionShape& shape, const Parameters& parameters)
      : s_(settings),
        heads_(shape.num_heads),
        weight_(to_double(parameters.tensor("affine_alpha"))),
        average_(to_double(parameters.tensor("affine_alpha_ma"))) {}

  // alpha [tokens, num_heads]
  std::vector<double> prepare(View<const double> x) const override {
    std::vector<double> alpha = project(x, weight_, {}, heads_);
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
  std::vector<double> weight_, average_;
};

}  // namespace

std::unique_ptr<ReadoutTwin> make_twin(const ReadoutOption& option, const AttentionShape& shape,
                                       const Parameters& parameters) {
  if (const auto* o = std::get_if<SelfAdjustSoftmax>(&option)) return std::make_unique<SelfAdjustTwin>(*o);
  if (const auto* o = std::get_if<AffineScaledAttention>(&option))
    return std::make_unique<AffineTwin>(*o, shape, parameters);
  return std::make_unique<MeanTwin>();
}

}  // namespace plait
