#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/reference/attention_options.h"
#include "layers/reference/projection.h"
#include "layers/reference/recurrence.h"
#include "runtime/base/words.h"

namespace plait {
namespace {

const std::vector<std::string> kFirst = {"scaled_dot", "integral_attention", "mlr_attention", "bilinear_mlr",
                                         "bilinear_btt"};
const std::vector<std::string> kFurther = {
    "scalable_softmax", "focal_attention", "scaled_signed_averaging", "sin_softmax", "row_standardise",
    "logit_softcap",    "alibi",           "forgetting_attention"};

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

double inverse_root(Index n) { return 1 / std::sqrt(static_cast<double>(n)); }

// A head's slopes as the paper has them for a power of two: 2^(-8/H), 2^(-16/H), ..; in between, every other
// slope of the next power.
std::vector<double> usual_slopes(Index heads) {
  const auto geometric = [](Index n) {
    std::vector<double> all;
    for (Index h = 1; h <= n; ++h)
      all.push_back(std::exp2(-8.0 * static_cast<double>(h) / static_cast<double>(n)));
    return all;
  };
  Index power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<double> slopes = geometric(power);
  const std::vector<double> between = geometric(2 * power);
  for (std::size_t h = 0; static_cast<Index>(slopes.size()) < heads; h += 2) slopes.push_back(between[h]);
  return slopes;
}

constexpr const char* kStructured = "scores by structured matrices (arXiv 2509.07963)";

// They add up to head_dim; every level halves the one before, as often as `finest`, called `what`, allows.
std::vector<Index> read_ranks(Config& own, Index head_dim, const char* what, Index finest) {
  std::vector<Index> ranks;
  Index sum = 0;
  for (const double rank : own.numbers_or("ranks", {static_cast<double>(head_dim)},
                                          "channels of every level, coarsest first; their sum is head_dim")) {
    if (!(rank >= 0 && rank <= static_cast<double>(head_dim)) || std::floor(rank) != rank)
      own.refuse("ranks has ", rank, ", but ranks are whole numbers from 0 to head_dim");
    ranks.push_back(static_cast<Index>(rank));
    sum += ranks.back();
  }
  if (sum != head_dim) own.refuse("ranks add up to ", sum, ", but head_dim is ", head_dim);
  if (ranks.size() > 32 || finest % (Index{1} << (ranks.size() - 1)) != 0)
    own.refuse("ranks has ", ranks.size(), " levels, each of which halves the one before, but ", what, " is ",
               finest);
  return ranks;
}

MlrAttention read_mlr(Config& config, const ProjectionSettings& shape) {
  Config& own = config.section("mlr_attention", kStructured);
  MlrAttention s;
  const Index block = own.integer("block_size", "positions of a block of the first level");
  s.ranks = read_ranks(own, shape.head_dim, "block_size", block);
  for (std::size_t l = 0; l < s.ranks.size(); ++l) s.blocks.push_back(block >> l);
  s.divide = static_cast<MlrAttention::Divide>(
      own.choice("divide_by", {"none", "levels", "shared_levels"},
                 "a logit's divisor: 1, the number of levels, or of those query and key share"));
  return s;
}

BilinearMlr read_bilinear_mlr(Config& config, const ProjectionSettings& shape) {
  Config& own = config.section("bilinear_mlr", kStructured);
  BilinearMlr s;
  s.ranks = read_ranks(own, shape.head_dim, "width", shape.width);
  s.mup = own.choice("scale", {"standard", "mup"}, "1 / sqrt(n) of a level with n columns, or 8 / n") == 1;
  s.divide_by_levels = own.boolean_or("divide_by_levels", false, "divides a logit by the number of levels");
  return s;
}

BilinearBtt read_bilinear_btt(Config& config) {
  Config& own = config.section("bilinear_btt", kStructured);
  BilinearBtt s;
  s.rank = own.integer_or("rank", 1, "of the tensor train", 1);
  s.mup = own.choice("scale", {"standard", "mup"}, "1 / sqrt(width) or 1 / width") == 1;
  return s;
}

ScoreOption read_first(Config& config, const std::string& name, double scale,
                       const ProjectionSettings& shape) {
  if (name == "scaled_dot") return ScaledDot{scale == 0 ? inverse_root(shape.head_dim) : scale};
  if (scale != 0) config.refuse("scale is set, but ", name, " brings its own");
  if (name == "mlr_attention") return read_mlr(config, shape);
  if (name == "bilinear_mlr") return read_bilinear_mlr(config, shape);
  if (name == "bilinear_btt") return read_bilinear_btt(config);
  Config& own = config.section(name, "averaged logits of several signals (arXiv 2508.18387)");
  IntegralAttention s;
  s.signals =
      own.integer_or("signals", 4, "slices of a head whose logits are averaged; UNCONFIRMED default", 1);
  s.rope_per_signal =
      own.boolean_or("rope_per_signal", true, "rope turns every slice as a head of its own; UNCONFIRMED");
  if (shape.head_dim % s.signals != 0)
    own.refuse("signals is ", s.signals, ", which does not divide head_dim, ", shape.head_dim);
  s.scale = inverse_root(s.signals * shape.head_dim);
  return s;
}

FocalAttention read_focal(Config& config, const ProjectionSettings& shape) {
  Config& own = config.section("focal_attention", "temperature of the logits (arXiv 2511.06818)");
  FocalAttention s;
  s.mode = static_cast<FocalAttention::Mode>(own.choice(
      "mode", {"fixed", "per_token", "prefix_mean", "full_mean"},
      "one number t; or tau in place of t sqrt(head_dim), from each token, the mean so far or, in an "
      "encoder, the mean of all; which mean the authors take is UNCONFIRMED"));
  const bool causal = config.surroundings().causal;
  if (s.mode == FocalAttention::Mode::full_mean && causal)
    own.refuse("mode full_mean lets a row see the tokens behind it, but the card's graph is causal");
  if (s.mode == FocalAttention::Mode::prefix_mean && !causal)
    own.refuse("mode prefix_mean is for causal graphs; the mean of an encoder is full_mean");
  const bool fixed = s.mode == FocalAttention::Mode::fixed;
  if (fixed) {
    s.t = own.number_or("t", 0.4, "divides the logits");
    if (!(s.t > 0)) own.refuse("t is ", s.t, ", but must be positive");
    return s;
  }
  const double root = std::sqrt(static_cast<double>(shape.head_dim));
  s.tau_min = own.number_or("tau_min", root / 10, "smallest tau; UNCONFIRMED, sqrt(head_dim) / 10");
  s.tau_max = own.number_or("tau_max", root * 10, "greatest tau; UNCONFIRMED, 10 sqrt(head_dim)");
  if (!(0 < s.tau_min && s.tau_min <= s.tau_max))
    own.refuse("tau_min ", s.tau_min, " and tau_max ", s.tau_max, " must be positive and ascending");
  return s;
}

ScaledSignedAveraging read_signed_averaging(Config& config) {
  Config& own = config.section("scaled_signed_averaging", "logits as powers of 1 + b |s| (arXiv 2508.14685)");
  ScaledSignedAveraging s;
  s.b = own.number_or("b", std::exp(1.0), "on |s|");
  s.n = own.number_or("n", std::exp(0.4), "the power");
  if (!(s.b > 0)) own.refuse("b is ", s.b, ", but must be positive");
  if (!(s.n > 0)) own.refuse("n is ", s.n, ", but must be positive");
  return s;
}

LogitSoftcap read_softcap(Config& config) {
  Config& own = config.section("logit_softcap", "cap tanh(s / cap)");
  const LogitSoftcap s{own.number_or("cap", 50, "bound of a logit's size")};
  if (!(s.cap > 0)) own.refuse("cap is ", s.cap, ", but must be positive");
  return s;
}

Alibi read_alibi(Config& config, const ProjectionSettings& shape) {
  Config& own = config.section("alibi", "linear bias by distance (arXiv 2108.12409)");
  const Alibi s{own.numbers_or("slopes", usual_slopes(shape.num_heads), "per head; the paper's unless set")};
  if (static_cast<Index>(s.slopes.size()) != shape.num_heads)
    own.refuse("slopes has ", s.slopes.size(), " numbers, but num_heads is ", shape.num_heads);
  return s;
}

bool read_prune(Config& config) {
  return config.choice("prune", {"none", "adaptive_computation_pruning"},
                       "leaves out keys that are forgotten beyond reach (arXiv 2504.06949)") == 1;
}

ForgettingAttention read_forgetting(Config& config, const ProjectionSettings& shape, std::size_t scores) {
  Config& own = config.section("forgetting_attention", "a forget gate's logs as bias (arXiv 2503.02130)");
  ForgettingAttention s;
  s.per_token =
      own.choice("type", {"full", "bias_only"},
                 "gate from the token and a bias, or from the bias alone (the paper's fixed, too)") == 0;
  if (!read_prune(config)) return s;
  Config& prune = config.section("adaptive_computation_pruning", "which keys are beyond reach");
  s.pruning.emplace();
  s.pruning->log_tol = prune.number_or("log_tol", -10, "ln of what a row may lose of its weights");
  s.pruning->max_length = prune.integer("max_length", "keys a row sees at most");
  s.pruning->bound =
      prune.number_or("bound", 0, "of a logit's size without its gates; 0 = from the q/k norm's gains");
  if (s.pruning->log_tol >= 0) prune.refuse("log_tol is ", s.pruning->log_tol, ", but must be negative");
  const bool bounded = shape.qk_norm && shape.qk_norm->type == QkNormSettings::Type::rms;
  if (s.pruning->bound < 0 || (s.pruning->bound == 0 && !bounded))
    prune.refuse("bound must be positive, or the layer have a qk_norm of type rms that bounds its logits");
  if (scores != 2)
    config.refuse("prune bounds the logits of score [scaled_dot, forgetting_attention]; this list has ",
                  scores, " transforms");
  return s;
}

double read_scale_after(Config& own, const ProjectionSettings& shape) {
  const bool after = own.boolean_or("scale_after", false,
                                    "times 1 / sqrt(head_dim) afterwards; the authors' two files disagree");
  return after ? inverse_root(shape.head_dim) : 1;
}

ScoreOption read_further(Config& config, const std::string& name, const ProjectionSettings& shape,
                         std::size_t scores, double scale) {
  if (!config.surroundings().causal && (name == "alibi" || name == "forgetting_attention"))
    config.refuse("score ", name, " goes back along the tokens; an encoder's rows see keys on both sides");
  if (name == "scalable_softmax") {
    Config& own = config.section(name, "logits grow with the log of the number of keys (arXiv 2501.19399)");
    ScalableSoftmax s;
    s.bias = own.boolean_or("bias", false, "adds a learned number to s ln n; UNCONFIRMED");
    if (own.boolean_or("ssmax_replaces_scale", false, "s ln n stands in place of the scale; UNCONFIRMED"))
      s.undo = scale != 0 ? 1 / scale : std::sqrt(static_cast<double>(shape.head_dim));
    return s;
  }
  if (name == "focal_attention") return read_focal(config, shape);
  if (name == "scaled_signed_averaging") return read_signed_averaging(config);
  if (name == "sin_softmax") {
    Config& own = config.section(name, "the sine of a logit (arXiv 2108.07153)");
    return SinSoftmax{read_scale_after(own, shape)};
  }
  if (name == "row_standardise") {
    Config& own =
        config.section(name, "logits of a row less their mean, over their deviation (arXiv 2108.07153)");
    RowStandardise s;
    s.eps = own.number_or("eps", 1e-5, "added to the variance");
    if (!(s.eps > 0)) own.refuse("eps is ", s.eps, ", but must be positive");
    s.scale_after = read_scale_after(own, shape);
    return s;
  }
  if (name == "logit_softcap") return read_softcap(config);
  if (name == "alibi") return read_alibi(config, shape);
  return read_forgetting(config, shape, scores);
}

bool is_structured(const ScoreOption& first) {
  return !std::holds_alternative<ScaledDot>(first) && !std::holds_alternative<IntegralAttention>(first);
}

// What counts on the one factor and head_dim of scaled_dot.
void refuse_behind_structured(Config& config, const std::string& first, const ScoreOption& option) {
  const char* wants = nullptr;
  if (const auto* s = std::get_if<ScalableSoftmax>(&option); s && s->undo != 1)
    wants = "ssmax_replaces_scale";
  if (const auto* s = std::get_if<FocalAttention>(&option); s && s->mode != FocalAttention::Mode::fixed)
    wants = "focal_attention with tau";
  if (const auto* s = std::get_if<RowStandardise>(&option); s && s->scale_after != 1) wants = "scale_after";
  if (const auto* s = std::get_if<SinSoftmax>(&option); s && s->scale_after != 1) wants = "scale_after";
  if (const auto* s = std::get_if<ForgettingAttention>(&option); s && s->pruning) wants = "prune";
  if (wants)
    config.refuse(wants, " counts on the scale of score scaled_dot, but the list begins with ", first);
}

}  // namespace

double scale_of(const ScoreOption& first) {
  if (const auto* dot = std::get_if<ScaledDot>(&first)) return dot->scale;
  if (const auto* integral = std::get_if<IntegralAttention>(&first)) return integral->scale;
  return 1;
}

std::vector<ScoreOption> read_scores(Config& config, const ProjectionSettings& shape) {
  const double scale = config.number_or("scale", 0, "factor on q.k; 0 = 1 / sqrt(head_dim)");
  const std::vector<std::string> names =
      config.texts_or("score", {"scaled_dot"},
                      cat("transforms of a logit, in this order; first one of ", joined(kFirst, "|"),
                          ", then any of ", joined(kFurther, "|")));
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!holds(kFirst, names[i]) && !holds(kFurther, names[i]))
      config.refuse("score '", names[i], "' is unknown; first comes one of ", joined(kFirst),
                    ", then any of ", joined(kFurther));
    if (std::count(names.begin(), names.end(), names[i]) > 1)
      config.refuse("score lists ", names[i], " more than once");
  }
  if (names.empty() || !holds(kFirst, names[0]))
    config.refuse("score must begin with what makes a logit of q.k: ", joined(kFirst));
  std::vector<ScoreOption> options = {read_first(config, names[0], scale, shape)};
  for (std::size_t i = 1; i < names.size(); ++i) {
    if (holds(kFirst, names[i]))
      config.refuse("score lists ", names[i], " behind ", names[0], "; it comes first");
    options.push_back(read_further(config, names[i], shape, names.size(), scale));
    if (is_structured(options.front())) refuse_behind_structured(config, names[0], options.back());
  }
  if (config.given("prune") && !holds(names, "forgetting_attention") && read_prune(config))
    config.refuse("prune wants score forgetting_attention, whose gates tell what is beyond reach");
  return options;
}

const KeyPruning* pruning_of(const std::vector<ScoreOption>& scores) {
  for (const ScoreOption& score : scores)
    if (const auto* s = std::get_if<ForgettingAttention>(&score); s && s->pruning) return &*s->pruning;
  return nullptr;
}

double prune_threshold(const KeyPruning& pruning, const ProjectionSettings& shape, double scale,
                       const Parameters& parameters) {
  const auto greatest = [&](const char* name) {
    double most = 0;
    for (const double gain : to_double(parameters.tensor(name)))
      most =
          std::max(most, std::abs(shape.qk_norm->form == QkNormSettings::Form::one_plus ? 1 + gain : gain));
    return most;
  };
  // A normed head is at most sqrt(head_dim) times its greatest gain long; yarn stretches its rotary channels.
  const double stretch = shape.rope ? std::max(1.0, std::abs(rope_attention_factor(*shape.rope))) : 1;
  const double bound = pruning.bound > 0 ? pruning.bound
                                         : std::abs(scale) * static_cast<double>(shape.head_dim) * stretch *
                                               stretch * greatest("q_norm") * greatest("k_norm");
  return pruning.log_tol - 2 * bound - std::log(static_cast<double>(pruning.max_length));
}

std::vector<TensorSpec> tensors_of(const ScoreOption& option, const ProjectionSettings& shape) {
  std::vector<TensorSpec> specs;
  if (const auto* s = std::get_if<ScalableSoftmax>(&option)) {
    specs.push_back({"ssmax_scale", {shape.num_heads}, Init::around_one, "[num_heads]"});
    if (s->bias) specs.push_back({"ssmax_bias", {shape.num_heads}, Init::small, "[num_heads]"});
  }
  if (const auto* s = std::get_if<FocalAttention>(&option); s && s->mode != FocalAttention::Mode::fixed)
    specs.push_back({"focal_tau", {1, shape.width}, Init::normal, "[1, width]", true});
  if (const auto* s = std::get_if<ForgettingAttention>(&option)) {
    if (s->per_token)
      specs.push_back({"forget", {shape.num_heads, shape.width}, Init::normal, "[num_heads, width]", true});
    specs.push_back({"forget_bias", {shape.num_heads}, Init::small, "[num_heads]"});
  }
  return specs;
}

namespace {

template <class F>
class EachLogit final : public ScoreTwin {
 public:
  explicit EachLogit(F f) : f_(f) {}
  void apply(const TwinRow& row, const std::vector<double>&, std::vector<double>& s) const override {
    for (std::size_t n = 0; n < s.size(); ++n) s[n] = f_(row, n, s[n]);
  }

 private:
  F f_;
};

template <class F>
std::unique_ptr<ScoreTwin> each(F f) {
  return std::make_unique<EachLogit<F>>(f);
}

class FocalTwin final : public ScoreTwin {
 public:
  FocalTwin(const FocalAttention& settings, const ProjectionSettings& shape, const Parameters& parameters)
      : s_(settings), root_(std::sqrt(static_cast<double>(shape.head_dim))) {
    if (s_.mode != FocalAttention::Mode::fixed) tau_ = to_double(parameters.tensor("focal_tau"));
  }
  // tau of every token
  std::vector<double> prepare(View<const double> x) const override {
    if (s_.mode == FocalAttention::Mode::fixed) return {};
    std::vector<double> tau = project(x, tau_, {}, 1);
    if (s_.mode == FocalAttention::Mode::prefix_mean) {
      double sum = 0;
      for (std::size_t i = 0; i < tau.size(); ++i) {
        sum += tau[i];
        tau[i] = sum / static_cast<double>(i + 1);
      }
    }
    if (s_.mode == FocalAttention::Mode::full_mean) {
      double sum = 0;
      for (const double t : tau) sum += t;
      std::fill(tau.begin(), tau.end(), sum / static_cast<double>(tau.size()));
    }
    for (double& t : tau) t = std::clamp(t, s_.tau_min, s_.tau_max);
    return tau;
  }
  void apply(const TwinRow& row, const std::vector<double>& tau, std::vector<double>& s) const override {
    const double divisor = tau.empty() ? s_.t : tau[static_cast<std::size_t>(row.position)] / root_;
    for (double& x : s) x /= divisor;
  }

 private:
  FocalAttention s_;
  double root_;
  std::vector<double> tau_;
};

class ForgettingTwin final : public ScoreTwin {
 public:
  ForgettingTwin(const ForgettingAttention& settings, double scale, const ProjectionSettings& shape,
                 const Parameters& parameters)
      : heads_(shape.num_heads),
        weight_(optional_tensor(parameters, "forget")),
        bias_(to_double(parameters.tensor("forget_bias"))) {
    if (settings.pruning) threshold_ = prune_threshold(*settings.pruning, shape, scale, parameters);
  }
  // [tokens, num_heads]: sums of log f up to and with the token
  std::vector<double> prepare(View<const double> x) const override {
    const auto heads = static_cast<std::size_t>(heads_);
    std::vector<double> sums(static_cast<std::size_t>(x.rows) * heads);
    const std::vector<double> read = weight_.empty() ? sums : project(x, weight_, {}, heads_);
    for (std::size_t i = 0; i < sums.size(); ++i)
      sums[i] = reference::log_sigmoid(read[i] + bias_[i % heads]) + (i < heads ? 0 : sums[i - heads]);
    return sums;
  }
  void apply(const TwinRow& row, const std::vector<double>& sums, std::vector<double>& s) const override {
    const auto at = [&](Index t) { return sums[static_cast<std::size_t>(t * heads_ + row.head)]; };
    for (std::size_t n = 0; n < s.size(); ++n) {
      const double bias = at(row.position) - at(row.keys[n]);
      s[n] = bias < threshold_ ? -std::numeric_limits<double>::infinity() : s[n] + bias;
    }
  }

 private:
  Index heads_;
  std::vector<double> weight_, bias_;
  double threshold_ = -std::numeric_limits<double>::infinity();
};

// q.k of the whole heads is not the logit here: only levels whose block query and key share count.
class MlrTwin final : public ScoreTwin {
 public:
  explicit MlrTwin(const MlrAttention& settings) : s_(settings) {}
  void apply(const TwinRow& row, const std::vector<double>&, std::vector<double>& s) const override {
    for (std::size_t n = 0; n < s.size(); ++n) {
      s[n] = 0;
      double shared = 0;
      Index channel = 0;
      for (std::size_t l = 0; l < s_.ranks.size(); channel += s_.ranks[l++]) {
        if (s_.ranks[l] == 0 || row.position / s_.blocks[l] != row.keys[n] / s_.blocks[l]) continue;
        for (Index c = channel; c < channel + s_.ranks[l]; ++c) s[n] += row.query[c] * row.vectors[n][c];
        ++shared;
      }
      if (s_.divide == MlrAttention::Divide::shared_levels && shared > 0) s[n] /= shared;
    }
  }

 private:
  MlrAttention s_;
};

class RowStandardiseTwin final : public ScoreTwin {
 public:
  explicit RowStandardiseTwin(const RowStandardise& settings) : s_(settings) {}
  void apply(const TwinRow&, const std::vector<double>&, std::vector<double>& s) const override {
    const auto n = static_cast<double>(s.size());
    double mean = 0, squares = 0;
    for (const double x : s) mean += x / n;
    for (const double x : s) squares += (x - mean) * (x - mean);
    const double factor = n < 2 ? 0 : s_.scale_after / std::sqrt(squares / (n - 1) + s_.eps);
    for (double& x : s) x = (x - mean) * factor;
  }

 private:
  RowStandardise s_;
};

struct MakeScore {
  double scale;  // of the first score
  const ProjectionSettings& shape;
  const Parameters& parameters;

  using Made = std::unique_ptr<ScoreTwin>;
  static Made unchanged() {
    return each([](const TwinRow&, std::size_t, double s) { return s; });
  }
  Made operator()(const ScaledDot& o) const {
    return each([c = o.scale](const TwinRow&, std::size_t, double s) { return c * s; });
  }
  Made operator()(const IntegralAttention& o) const {
    return each([c = o.scale](const TwinRow&, std::size_t, double s) { return c * s; });
  }
  Made operator()(const MlrAttention& o) const { return std::make_unique<MlrTwin>(o); }
  Made operator()(const BilinearMlr&) const { return unchanged(); }
  Made operator()(const BilinearBtt&) const { return unchanged(); }
  Made operator()(const ScalableSoftmax& o) const {
    return each([u = o.undo, a = to_double(parameters.tensor("ssmax_scale")),
                 b = optional_tensor(parameters, "ssmax_bias")](const TwinRow& row, std::size_t, double s) {
      const auto h = static_cast<std::size_t>(row.head);
      return u * (a[h] * std::log(row.count()) + (b.empty() ? 0 : b[h])) * s;
    });
  }
  Made operator()(const FocalAttention& o) const { return std::make_unique<FocalTwin>(o, shape, parameters); }
  Made operator()(const ScaledSignedAveraging& o) const {
    return each([o](const TwinRow&, std::size_t, double s) {
      return o.n * (s < 0 ? -1 : 1) * std::log1p(o.b * std::abs(s));
    });
  }
  Made operator()(const SinSoftmax& o) const {
    return each([c = o.scale_after](const TwinRow&, std::size_t, double s) { return c * std::sin(s); });
  }
  Made operator()(const RowStandardise& o) const { return std::make_unique<RowStandardiseTwin>(o); }
  Made operator()(const LogitSoftcap& o) const {
    return each([c = o.cap](const TwinRow&, std::size_t, double s) { return c * std::tanh(s / c); });
  }
  Made operator()(const Alibi& o) const {
    return each([slopes = o.slopes](const TwinRow& row, std::size_t n, double s) {
      return s - slopes[static_cast<std::size_t>(row.head)] * static_cast<double>(row.position - row.keys[n]);
    });
  }
  Made operator()(const ForgettingAttention& o) const {
    return std::make_unique<ForgettingTwin>(o, scale, shape, parameters);
  }
};

}  // namespace

std::unique_ptr<ScoreTwin> make_twin(const ScoreOption& option, double scale, const ProjectionSettings& shape,
                                     const Parameters& parameters) {
  return std::visit(MakeScore{scale, shape, parameters}, option);
}

}  // namespace plait
