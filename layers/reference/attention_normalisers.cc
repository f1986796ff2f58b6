#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "layers/reference/attention_options.h"
#include "layers/reference/projection.h"
#include "layers/reference/recurrence.h"

namespace plait {
namespace {

using Weights = std::vector<double>;

constexpr Index kMostOrder = 64;         // of a Taylor polynomial
constexpr double kLargestExponent = 88;  // e^88 is an f32

SigmoidAttention read_sigmoid(Config& config) {
  using Bias = SigmoidAttention::Bias;
  Config& own =
      config.section("sigmoid_attention", "a sigmoid of each logit, no denominator (arXiv 2409.04431)");
  SigmoidAttention s;
  s.bias_mode = static_cast<Bias>(own.choice("bias_mode", {"const", "neg_log_n", "neg_log_ni"},
                                             "bias of the logits: a number; -ln n of the training length n; "
                                             "-ln of the keys the row sees; UNCONFIRMED"));
  if (s.bias_mode == Bias::constant) s.bias = own.number_or("bias", 0, "added to the logits");
  if (s.bias_mode == Bias::neg_log_n)
    s.bias = -std::log(static_cast<double>(own.integer("n", "tokens of a training sequence")));
  s.t = own.number_or("t", 0, "logits are multiplied by e^t");
  if (s.t > kLargestExponent) own.refuse("t is ", s.t, ", but e^t must be a number that f32 holds");
  s.row_scale = static_cast<SigmoidAttention::RowScale>(own.choice(
      "row_scale", {"none", "inv_sqrt_n", "inv_n"}, "factor on the row's weights, n = keys it sees"));
  return s;
}

PeriodicSoftmax read_periodic(Config& config) {
  Config& own = config.section("periodic_softmax", "a periodic function in place of exp (arXiv 2108.07153)");
  PeriodicSoftmax s;
  s.function = static_cast<PeriodicSoftmax::Function>(
      own.choice("function", {"sin2_shifted", "sin2", "cos", "sin", "one_plus_sin10", "siren"},
                 "numerator; sin is the authors' module, one_plus_sin10 their demo, which disagree"));
  s.eps = own.number_or("eps", 1e-6, "added to the denominator with its sign");
  if (!(s.eps > 0)) own.refuse("eps is ", s.eps, ", but must be positive");
  return s;
}

TaylorSoftmax read_taylor(Config& config) {
  Config& own = config.section("taylor_softmax", "a Taylor polynomial in place of exp (arXiv 2011.11538)");
  const TaylorSoftmax s{own.integer_or("order", 2, "of the polynomial, even", 2)};
  if (s.order > kMostOrder) own.refuse("order is ", s.order, ", but at most ", kMostOrder, " is computed");
  if (s.order % 2 != 0) own.refuse("order is ", s.order, ", but only even orders are positive everywhere");
  return s;
}

}  // namespace

NormaliserOption read_normaliser(Config& config) {
  switch (config.choice("normaliser",
                        {"softmax", "softmax_one", "sink_softmax", "softermax", "cog_attention",
                         "sigmoid_attention", "periodic_softmax", "taylor_softmax", "stick_breaking",
                         "linear_unnormalised", "erf_unnormalised", "softplus_normalised"},
                        "how logits become weights")) {
    case 1:
      return Softmax{Softmax::Sink::zero};
    case 2:
      return Softmax{Softmax::Sink::learned};
    case 3: {
      Config& own = config.section("softermax",
                                   "powers of two, a whole maximum (arXiv 2103.09301); its fixed-point "
                                   "formats are UNCONFIRMED and not here");
      return Softermax{
          own.choice("logits", {"raw", "log2e"}, "as they are, or times log2(e): then softmax") == 1};
    }
    case 4:
      return CogAttention{};
    case 5:
      return read_sigmoid(config);
    case 6:
      return read_periodic(config);
    case 7:
      return read_taylor(config);
    case 8: {
      if (!config.surroundings().causal)
        config.refuse("stick_breaking goes back along the tokens; an encoder's rows see keys on both sides");
      Config& own = config.section("stick_breaking", "the nearest key takes its part of the stick first");
      return StickBreaking{own.boolean_or("attend_current", false, "a row sees its own key")};
    }
    case 9:
      return LocationWeights{LocationWeights::Function::linear, 0};
    case 10: {
      Config& own = config.section("erf_unnormalised", "1 + erf(c + s) (arXiv 2509.21936)");
      return LocationWeights{LocationWeights::Function::erf, own.number_or("c", 0, "added to the logits")};
    }
    case 11:
      return LocationWeights{LocationWeights::Function::softplus, 0};
    default:
      return Softmax{};
  }
}

std::vector<TensorSpec> tensors_of(const NormaliserOption& option, const ProjectionSettings& shape) {
  const auto* softmax = std::get_if<Softmax>(&option);
  if (!softmax || softmax->sink != Softmax::Sink::learned) return {};
  return {{"sinks", {shape.num_heads}, Init::small, "[num_heads]"}};
}

namespace {

// Weights by a function of one logit, divided by what `denominator` makes of their sum.
class Plain final : public NormaliserTwin {
 public:
  using Function = std::function<double(const TwinRow&, double)>;
  using Denominator = std::function<double(const TwinRow&, double)>;
  Plain(Function f, Denominator denominator) : f_(std::move(f)), denominator_(std::move(denominator)) {}

  Weights weights(const TwinRow& row, const std::vector<double>& s) const override {
    Weights w;
    double sum = 0;
    for (const double x : s) sum += w.emplace_back(f_(row, x));
    for (double& x : w) x /= denominator_(row, sum);
    return w;
  }

 private:
  Function f_;
  Denominator denominator_;
};

std::unique_ptr<NormaliserTwin> plain(Plain::Function f, Plain::Denominator denominator) {
  return std::make_unique<Plain>(std::move(f), std::move(denominator));
}

// Where all weights underflow the row reads 0.
double own_sum(const TwinRow&, double sum) { return sum == 0 ? 1 : sum; }
double unit(const TwinRow&, double) { return 1; }

class SoftmaxTwin final : public NormaliserTwin {
 public:
  // sinks [num_heads] where they are learned
  SoftmaxTwin(const Softmax& settings, std::vector<double> sinks) : s_(settings), sinks_(std::move(sinks)) {}

  Weights weights(const TwinRow& row, const std::vector<double>& s) const override {
    std::vector<double> all = s;  // the sink is one more logit, whose weight is dropped
    if (s_.sink != Softmax::Sink::none)
      all.push_back(sinks_.empty() ? 0 : sinks_[static_cast<std::size_t>(row.head)]);
    const double maximum = *std::max_element(all.begin(), all.end());
    double mass = 0;
    for (double& x : all) mass += x = std::exp(x - maximum);
    for (double& x : all) x /= mass;
    all.resize(s.size());
    return all;
  }

 private:
  Softmax s_;
  std::vector<double> sinks_;
};

// softmax(ln 2 times the logits), by powers of two.
class SoftermaxTwin final : public NormaliserTwin {
 public:
  explicit SoftermaxTwin(double factor) : factor_(factor) {}

  Weights weights(const TwinRow&, const std::vector<double>& s) const override {
    double maximum = -std::numeric_limits<double>::infinity(), mass = 0;
    for (const double x : s) maximum = std::max(maximum, std::ceil(factor_ * x));
    Weights w;
    for (const double x : s) mass += w.emplace_back(std::exp2(factor_ * x - maximum));
    for (double& x : w) x /= mass;
    return w;
  }

 private:
  double factor_;
};

class CogTwin final : public NormaliserTwin {
 public:
  Weights weights(const TwinRow&, const std::vector<double>& s) const override {
    double maximum = 0, mass = 0;
    for (const double x : s) maximum = std::max(maximum, std::abs(x));
    for (const double x : s) mass += std::exp(std::abs(x) - maximum);
    Weights w;
    for (const double x : s)
      w.push_back((x > 0 ? 1 : x < 0 ? -1 : 0) * std::exp(std::abs(x) - maximum) / mass);
    return w;
  }
};

class StickBreakingTwin final : public NormaliserTwin {
 public:
  explicit StickBreakingTwin(bool attend_current) : attend_current_(attend_current) {}

  Weights weights(const TwinRow& row, const std::vector<double>& s) const override {
    Weights w(s.size());
    double stick = 1;
    for (std::size_t n = s.size(); n-- > 0;) {
      if (row.keys[n] == row.position && !attend_current_) continue;
      w[n] = stick * reference::sigmoid(s[n]);
      stick *= reference::sigmoid(-s[n]);
    }
    return w;
  }

 private:
  bool attend_current_;
};

double periodic(PeriodicSoftmax::Function function, double x) {
  using Function = PeriodicSoftmax::Function;
  switch (function) {
    case Function::cos:
      return std::cos(x);
    case Function::sin:
      return std::sin(x);
    case Function::one_plus_sin10:
      return 1 + std::sin(10 * x);
    case Function::sin2:
      return std::pow(std::sin(x), 2);
    case Function::sin2_shifted:
      return std::pow(std::sin(x + std::numbers::pi / 4), 2);
    case Function::siren:
      return (1 + std::sin(x)) / (2 * std::max(1 - std::sin(x), 1e-6));
  }
  return 0;
}

struct MakeNormaliser {
  const Parameters& parameters;

  using Made = std::unique_ptr<NormaliserTwin>;
  Made operator()(const Softmax& o) const {
    return std::make_unique<SoftmaxTwin>(o, optional_tensor(parameters, "sinks"));
  }
  Made operator()(const Softermax& o) const {
    return std::make_unique<SoftermaxTwin>(o.natural ? std::numbers::log2e : 1.0);
  }
  Made operator()(const CogAttention&) const { return std::make_unique<CogTwin>(); }
  Made operator()(const SigmoidAttention& o) const {
    using RowScale = SigmoidAttention::RowScale;
    return plain(
        [o](const TwinRow& row, double s) {
          const double bias =
              o.bias_mode == SigmoidAttention::Bias::neg_log_ni ? -std::log(row.count()) : o.bias;
          return reference::sigmoid(std::exp(o.t) * s + bias);
        },
        [o](const TwinRow& row, double) {
          if (o.row_scale == RowScale::inv_n) return row.count();
          return o.row_scale == RowScale::inv_sqrt_n ? std::sqrt(row.count()) : 1.0;
        });
  }
  Made operator()(const PeriodicSoftmax& o) const {
    return plain([o](const TwinRow&, double s) { return periodic(o.function, s); },
                 [o](const TwinRow&, double sum) { return sum + std::copysign(o.eps, sum); });
  }
  Made operator()(const TaylorSoftmax& o) const {
    return plain(
        [o](const TwinRow&, double s) {
          double term = 1, sum = 1;
          for (Index i = 1; i <= o.order; ++i) sum += term *= s / static_cast<double>(i);
          return sum;
        },
        own_sum);
  }
  Made operator()(const StickBreaking& o) const {
    return std::make_unique<StickBreakingTwin>(o.attend_current);
  }
  Made operator()(const LocationWeights& o) const {
    switch (o.function) {
      case LocationWeights::Function::linear:
        return plain([](const TwinRow&, double s) { return 1 + s; }, unit);
      case LocationWeights::Function::erf:
        return plain([c = o.shift](const TwinRow&, double s) { return 1 + std::erf(c + s); }, unit);
      case LocationWeights::Function::softplus:
        return plain([](const TwinRow&, double s) { return reference::softplus(s); }, own_sum);
    }
    return nullptr;
  }
};

}  // namespace

std::unique_ptr<NormaliserTwin> make_twin(const NormaliserOption& option, const Parameters& parameters) {
  return std::visit(MakeNormaliser{parameters}, option);
}

}  // namespace plait
