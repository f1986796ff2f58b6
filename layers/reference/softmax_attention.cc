#include "layers/reference/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/reference/attention_twin.h"

namespace plait {
namespace {

using Settings = SoftmaxAttentionSettings;

// Rope of every signal: its channels are those of a slice.
void slice_rope(Config& config, const IntegralAttention& integral, ProjectionSettings& p) {
  if (!p.rope || !integral.rope_per_signal) return;
  const Index slice = p.head_dim / integral.signals;
  p.rope_slices = integral.signals;
  if (p.rope->dim == p.head_dim) p.rope->dim = slice;
  if (p.rope->dim > slice || p.rope->dim % 2 != 0)
    config.refuse("rope.dim is ", p.rope->dim, ", but rope turns each signal of ", slice,
                  " channels; it must be even and no more than that");
}

// How many levels there are.
Index levels_of(const std::vector<Index>& ranks) {
  return static_cast<Index>(std::count_if(ranks.begin(), ranks.end(), [](Index r) { return r > 0; }));
}

// Columns of a head that belong to one level have one factor.
void append_factor(ProjectionSettings& p, Index columns, double factor) {
  p.query_factors.insert(p.query_factors.end(), static_cast<std::size_t>(columns), factor);
}

void shape_levels(const MlrAttention& mlr, ProjectionSettings& p) {
  const double divisor =
      mlr.divide == MlrAttention::Divide::levels ? static_cast<double>(levels_of(mlr.ranks)) : 1;
  for (const Index rank : mlr.ranks) append_factor(p, rank, 1 / (divisor * static_cast<double>(rank)));
}

void shape_levels(const BilinearMlr& mlr, ProjectionSettings& p) {
  const double divisor = mlr.divide_by_levels ? static_cast<double>(levels_of(mlr.ranks)) : 1;
  p.structure = MultiLevelQk{mlr.ranks};
  p.head_dim = 0;
  for (std::size_t l = 0; l < mlr.ranks.size(); ++l) {
    const Index columns = mlr.ranks[l] << l;
    if (columns == 0) continue;
    p.norm_groups.push_back(columns);
    p.head_dim += columns;
    const auto n = static_cast<double>(columns);
    append_factor(p, columns, (mlr.mup ? 8 / n : 1 / std::sqrt(n)) / divisor);
  }
}

void shape_train(Config& config, const BilinearBtt& btt, ProjectionSettings& p) {
  if (p.num_kv_heads != p.num_heads)
    config.refuse("num_kv_heads is ", p.num_kv_heads,
                  ", but the queries of bilinear_btt are one for all heads, so every head has its own keys");
  Index b = 1;  // the smallest divisor above the root
  while (b * b <= p.width || p.width % b != 0) {
    if (b > p.width) config.refuse("width is ", p.width, ", which bilinear_btt cannot factor");
    ++b;
  }
  p.structure = BlockTrainKeys{p.width / b, b, btt.rank};
  p.head_dim = p.width;
  const auto n = static_cast<double>(p.width);
  append_factor(p, p.width, btt.mup ? 1 / n : 1 / std::sqrt(n));
}

// What a score of structured matrices makes of queries and keys.
void shape_queries(Config& config, const ScoreOption& first, ProjectionSettings& p) {
  if (const auto* integral = std::get_if<IntegralAttention>(&first)) return slice_rope(config, *integral, p);
  if (std::holds_alternative<ScaledDot>(first)) return;
  if (p.rope)
    config.refuse(
        "rope turns pairs of channels, which the levels of mlr_attention and the structured matrices "
        "of bilinear_mlr and bilinear_btt tear apart; leave one of them out");
  if (const auto* mlr = std::get_if<MlrAttention>(&first)) return shape_levels(*mlr, p);
  if (p.bias) config.refuse("bias is true, but structured queries and keys have none");
  if (const auto* mlr = std::get_if<BilinearMlr>(&first)) return shape_levels(*mlr, p);
  shape_train(config, std::get<BilinearBtt>(first), p);
}

// Query heads 2h and 2h + 1 make output head h. Version 2 reads one key head with both; version 1 has two key
// heads per value head.
void pair_heads(Config& config, const DifferentialAttention& differential, ProjectionSettings& p) {
  if (p.num_heads % 2 != 0)
    config.refuse("num_heads is ", p.num_heads, ", but differential attention pairs heads");
  if (differential.version == 2 && p.group() % 2 != 0)
    config.refuse("num_heads / num_kv_heads is ", p.group(),
                  ", but the two maps of a head must read the same keys and values; it must be even");
  if (differential.version == 1 && p.num_kv_heads % 2 != 0)
    config.refuse("num_kv_heads is ", p.num_kv_heads,
                  ", but two key heads share a value head; it must be even");
  if (differential.version == 1) p.keys_per_value = 2;
}

void read_score_and_readout(Config& config, Settings& s) {
  s.score = read_scores(config, s.projection);
  shape_queries(config, s.score.front(), s.projection);
  s.window = config.integer_or("window", 0, "keys a row sees: those fewer positions away than this; 0 = all");
  s.sinks = config.integer_or("sinks", 0, "first keys a row sees besides its window");
  if (s.sinks > 0 && s.window == 0)
    config.refuse("sinks is ", s.sinks, ", but without a window every row sees the first keys anyway");
  s.normaliser = read_normaliser(config);
  s.readout = read_readout(config, s.score, s.normaliser);
  if (pruning_of(s.score) &&
      !(std::holds_alternative<Softmax>(s.normaliser) && std::holds_alternative<MeanReadout>(s.readout)))
    config.refuse(
        "prune promises how much a row loses of weights that are e^logit over their sum: normaliser softmax, "
        "sink_softmax or softmax_one and readout mean");
  s.cache = read_cache(config);
  if (s.cache != DType::f32 && std::holds_alternative<LaserAttention>(s.readout))
    config.refuse(
        "cache is ", name_of(s.cache),
        ", but laser_attention caches e^(v - greatest v), whose logarithm 16 bits would spoil; it must "
        "be f32");
  if (const auto* differential = std::get_if<DifferentialAttention>(&s.readout))
    pair_heads(config, *differential, s.projection);
}

void read_gate(Config& config, Settings& s) {
  s.gate = static_cast<Settings::Gate>(
      config.choice("gate", {"none", "sigmoid"}, "factor on a head's output; sigmoid: sigmoid_gate"));
  s.granularity = static_cast<Settings::Granularity>(
      config.choice("gate_granularity", {"elementwise", "headwise"}, "a factor per column or per head"));
  s.packing = static_cast<Settings::Packing>(
      config.choice("gate_packing", {"separate", "per_query_head", "per_kv_group"},
                    "where the gate's rows lie: tensor gate; or in q, behind each head's or behind each key "
                    "head's group's"));
  s.gate_bias = config.boolean_or("gate_bias", false, "bias on the gate's logits");
  if (s.gate == Settings::Gate::none &&
      (s.granularity != Settings::Granularity::elementwise || s.packing != Settings::Packing::separate))
    config.refuse("gate_granularity and gate_packing mean nothing while gate is none");
  if (s.gate_bias && (s.gate == Settings::Gate::none || s.packing != Settings::Packing::separate))
    config.refuse("gate_bias needs a gate with a tensor of its own: gate sigmoid, gate_packing separate");
  if (s.packing == Settings::Packing::separate) return;
  if (s.projection.structure.index() != 0)
    config.refuse(
        "gate_packing puts the gate into q, but score bilinear_mlr and bilinear_btt have no such tensor");
  if (s.heads_out() != s.projection.num_heads)
    config.refuse("a gate packed into q means nothing where the readout combines query heads");
  s.projection.packed_gate = s.gate_width();
  s.projection.gate_behind_group = s.packing == Settings::Packing::per_kv_group;
}

}  // namespace

Index SoftmaxAttentionSettings::gate_width() const {
  if (gate == Gate::none) return 0;
  return granularity == Granularity::headwise ? 1 : projection.value_head_dim;
}

SoftmaxAttentionSettings read_softmax_attention(Config& config) {
  Settings s;
  s.causal = config.surroundings().causal;
  s.projection = read_projection(config);
  s.projection.bias = config.boolean_or("bias", false, "biases on queries, keys and values");
  s.projection.input_multiplier =
      config.number_or("input_multiplier", 1, "factor on the input of q, k and v");
  s.projection.key_multiplier =
      config.number_or("key_multiplier", 1, "factor on the keys, before their norm and rope");
  s.projection.shift = config.boolean_or(
      "shift_linear", false, "keys and values are mixed with the token before, by a gate per head");
  s.output_bias = config.boolean_or("output_bias", false, "bias on the output projection");
  read_score_and_readout(config, s);
  if (Config* norm =
          config.object("output_norm", "root-mean-square norm of every head's output, before the gate")) {
    s.output_norm = norm->number_or("eps", 1e-6, "added to the mean square", 0);
    const auto* stick = std::get_if<StickBreaking>(&s.normaliser);
    if (stick && !stick->attend_current && *s.output_norm == 0)
      norm->refuse("eps is 0, but the first row sees no key and has nothing else to divide by");
  }
  read_gate(config, s);
  config.finish();
  return s;
}

std::vector<TensorSpec> softmax_attention_tensors(const SoftmaxAttentionSettings& s) {
  const ProjectionSettings& p = s.projection;
  std::vector<TensorSpec> specs = projection_tensors(p);
  const std::string heads = s.heads_out() == p.num_heads ? "num_heads"
                            : s.heads_out() == 1         ? "1"
                                                         : "num_heads / 2";
  specs.push_back({"o",
                   {p.width, s.heads_out() * p.value_head_dim},
                   Init::normal,
                   "[width, " + heads + " * value_head_dim]",
                   true});
  if (s.output_norm)
    specs.push_back(
        {"o_norm", {s.heads_out() * p.value_head_dim}, Init::around_one, "[" + heads + " * value_head_dim]"});
  if (s.output_bias) specs.push_back({"o_bias", {p.width}, Init::small, "[width]"});
  const auto add = [&](const std::vector<TensorSpec>& more) {
    specs.insert(specs.end(), more.begin(), more.end());
  };
  for (const ScoreOption& option : s.score) add(tensors_of(option, s.projection));
  add(tensors_of(s.normaliser, s.projection));
  add(tensors_of(s.readout, s.projection));
  if (s.gate != Settings::Gate::none && s.packing == Settings::Packing::separate) {
    const bool headwise = s.granularity == Settings::Granularity::headwise;
    specs.push_back({"gate",
                     {s.heads_out() * s.gate_width(), p.width},
                     Init::normal,
                     headwise ? "[" + heads + ", width]" : "[" + heads + " * value_head_dim, width]",
                     true});
    if (s.gate_bias)
      specs.push_back({"gate_bias", {s.heads_out() * s.gate_width()}, Init::small, "[rows of gate]"});
  }
  return specs;
}

namespace {

class SoftmaxAttentionTwin final : public AttentionTwin {
 public:
  SoftmaxAttentionTwin(const Settings& settings, const Parameters& parameters)
      : settings_(settings),
        projection_(settings.projection, parameters),
        o_(to_double(parameters.tensor("o"))),
        o_bias_(optional_tensor(parameters, "o_bias")),
        o_norm_(optional_tensor(parameters, "o_norm")),
        gate_(optional_tensor(parameters, "gate")),
        gate_bias_(optional_tensor(parameters, "gate_bias")),
        normaliser_(make_twin(settings.normaliser, parameters)),
        readout_(make_twin(settings.readout, settings.projection, parameters)),
        mix_(make_mix_twin(settings.readout, settings.projection, parameters)) {
    for (const ScoreOption& option : settings.score)
      scores_.push_back(make_twin(option, scale_of(settings.score.front()), settings.projection, parameters));
  }

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const ProjectionSettings& p = settings_.projection;
    const View<const double> x = inputs[0];
    const Prepared all = prepare(x);
    const std::vector<double> read = readout_->prepare(x);
    const Index columns = settings_.heads_out() * p.value_head_dim;
    const std::vector<double> mixed = mix_ ? mix_->prepare(x) : std::vector<double>();
    std::vector<double> heads(static_cast<std::size_t>(x.rows * columns));
    for (Index i = 0; i < x.rows; ++i) {
      std::vector<double> walked(static_cast<std::size_t>(p.num_heads * p.value_head_dim)), lse;
      for (Index h = 0; h < p.num_heads; ++h)
        lse.push_back(attend(all, read, i, h, walked.data() + h * p.value_head_dim));
      if (mix_)
        mix_->mix(i, mixed, walked.data(), lse.data(), p.value_head_dim, heads.data() + i * columns);
      else
        std::copy(walked.begin(), walked.end(), heads.begin() + i * columns);
    }
    if (settings_.output_norm) normalise(heads);
    for (Index i = 0; i < x.rows; ++i) {
      const std::vector<double> factors = gates(all, i);
      for (Index c = 0; c < columns; ++c)
        heads[static_cast<std::size_t>(i * columns + c)] *= factors[static_cast<std::size_t>(c)];
    }
    const View<const double> concatenated(heads.data(), x.rows, columns);
    const std::vector<double> y = project(concatenated, o_, o_bias_, p.width);
    for (Index i = 0; i < x.rows; ++i) std::copy_n(y.data() + i * p.width, p.width, output.row(i));
  }

  std::unique_ptr<Sequence> open(View<const double> x) const override {
    return std::make_unique<Opened>(*this, prepare(x));
  }

 private:
  struct Prepared {
    ProjectionTwin::Rows rows;
    std::vector<double> gate;                 // logits [tokens, heads_out * gate_width]
    std::vector<std::vector<double>> scores;  // what each score option took from x
  };

  class Opened final : public Sequence {
   public:
    Opened(const SoftmaxAttentionTwin& twin, Prepared all) : twin_(twin), all_(std::move(all)) {}
    Look look(Index token, Index head) const override { return twin_.look(all_, token, head); }
    std::vector<double> logits(const TwinRow& row, std::vector<double> products) const override {
      return twin_.logits(all_, row, std::move(products));
    }
    std::vector<double> gates(Index token) const override { return twin_.gates(all_, token); }

   private:
    const SoftmaxAttentionTwin& twin_;
    Prepared all_;
  };

  Prepared prepare(View<const double> x) const {
    Prepared all{projection_.run(x), {}, {}};
    all.gate = gate_.empty() ? all.rows.gate
                             : project(x, gate_, gate_bias_, settings_.heads_out() * settings_.gate_width());
    round_cached(settings_.cache, all.rows.k);
    round_cached(settings_.cache, all.rows.v);
    for (const auto& score : scores_) all.scores.push_back(score->prepare(x));
    return all;
  }

  bool visible(Index i, Index j) const {
    return settings_.window == 0 || std::abs(i - j) < settings_.window || j < settings_.sinks;
  }

  // heads [tokens, heads_out * value_head_dim]
  void normalise(std::vector<double>& heads) const {
    const auto width = static_cast<std::size_t>(settings_.projection.value_head_dim);
    for (std::size_t head = 0; head < heads.size(); head += width) {
      double squares = 0;
      for (std::size_t c = head; c < head + width; ++c) squares += heads[c] * heads[c];
      const double size = std::sqrt(squares / static_cast<double>(width) + *settings_.output_norm);
      for (std::size_t c = head; c < head + width; ++c) heads[c] *= o_norm_[c % o_norm_.size()] / size;
    }
  }

  std::vector<double> logits(const Prepared& all, const TwinRow& row, std::vector<double> products) const {
    for (std::size_t n = 0; n < scores_.size(); ++n) scores_[n]->apply(row, all.scores[n], products);
    return products;
  }

  Look look(const Prepared& all, Index i, Index h) const {
    const ProjectionSettings& p = settings_.projection;
    const Index kv = h / p.group(), d = p.head_dim, dv = p.value_head_dim;
    Look look{{i, h, {}, {}, {}, all.rows.q.data() + (i * p.num_heads + h) * d}, {}, {}};
    std::vector<double> products;
    const Index last =
        settings_.causal ? i : static_cast<Index>(all.rows.k.size()) / (p.num_kv_heads * d) - 1;
    for (Index j = 0; j <= last; ++j) {
      if (!visible(i, j)) continue;
      look.row.keys.push_back(j);
      look.row.values.push_back(all.rows.v.data() + (j * p.num_value_heads() + kv / p.keys_per_value) * dv);
      look.row.vectors.push_back(all.rows.k.data() + (j * p.num_kv_heads + kv) * d);
      products.push_back(
          std::inner_product(look.row.query, look.row.query + d, look.row.vectors.back(), 0.0));
    }
    look.logits = logits(all, look.row, std::move(products));
    look.weights = normaliser_->weights(look.row, look.logits);
    return look;
  }

  // -> out [value_head_dim]; returns ln of the sum of e^s
  double attend(const Prepared& all, const std::vector<double>& read, Index i, Index h, double* out) const {
    const Look seen = look(all, i, h);
    readout_->read(seen.row, read, seen.logits, seen.weights, out, settings_.projection.value_head_dim);
    return log_sum_exp(seen.logits);
  }

  std::vector<double> gates(const Prepared& all, Index i) const {
    const Index width = settings_.gate_width();
    std::vector<double> factors(
        static_cast<std::size_t>(settings_.heads_out() * settings_.projection.value_head_dim), 1);
    if (width == 0) return factors;
    const Index repeat =
        settings_.projection.value_head_dim / width;  // 1 elementwise, value_head_dim headwise
    const double* logits = all.gate.data() + i * settings_.heads_out() * width;
    for (std::size_t c = 0; c < factors.size(); ++c)
      factors[c] = 1 / (1 + std::exp(-logits[static_cast<Index>(c) / repeat]));
    return factors;
  }

  Settings settings_;
  ProjectionTwin projection_;
  std::vector<double> o_, o_bias_, o_norm_, gate_, gate_bias_;
  std::vector<std::unique_ptr<ScoreTwin>> scores_;
  std::unique_ptr<NormaliserTwin> normaliser_;
  std::unique_ptr<ReadoutTwin> readout_;
  std::unique_ptr<HeadMixTwin> mix_;
};

}  // namespace

std::shared_ptr<Twin> make_softmax_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<SoftmaxAttentionTwin>(read_softmax_attention(config), parameters);
}

}  // namespace plait
