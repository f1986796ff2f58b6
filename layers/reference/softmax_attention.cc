#include "layers/reference/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

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
  if (const auto* integral = std::get_if<IntegralAttention>(&s.score.front()))
    slice_rope(config, *integral, s.projection);
  s.window = config.integer_or("window", 0, "keys a row sees: those fewer positions away than this; 0 = all");
  s.sinks = config.integer_or("sinks", 0, "first keys a row sees besides its window");
  if (s.sinks > 0 && s.window == 0)
    config.refuse("sinks is ", s.sinks, ", but without a window every row sees the first keys anyway");
  s.normaliser = read_normaliser(config);
  s.readout = read_readout(config, s.score, s.normaliser);
  if (const auto* differential = std::get_if<DifferentialAttention>(&s.readout))
    pair_heads(config, *differential, s.projection);
}

void read_gate(Config& config, Settings& s) {
  s.gate =
      static_cast<Settings::Gate>(config.choice("gate", {"none", "sigmoid"}, "factor on a head's output"));
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
  s.output_bias = config.boolean_or("output_bias", false, "bias on the output projection");
  read_score_and_readout(config, s);
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

class SoftmaxAttentionTwin final : public Twin {
 public:
  SoftmaxAttentionTwin(const Settings& settings, const Parameters& parameters)
      : settings_(settings),
        projection_(settings.projection, parameters),
        o_(to_double(parameters.tensor("o"))),
        o_bias_(optional_tensor(parameters, "o_bias")),
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
    Prepared all{projection_.run(x), {}, readout_->prepare(x)};
    for (const auto& score : scores_) all.scores.push_back(score->prepare(x));
    const Index columns = settings_.heads_out() * p.value_head_dim;
    const std::vector<double> mixed = mix_ ? mix_->prepare(x) : std::vector<double>();
    std::vector<double> heads(static_cast<std::size_t>(x.rows * columns));
    for (Index i = 0; i < x.rows; ++i) {
      std::vector<double> walked(static_cast<std::size_t>(p.num_heads * p.value_head_dim)), lse;
      for (Index h = 0; h < p.num_heads; ++h)
        lse.push_back(attend(all, i, h, walked.data() + h * p.value_head_dim));
      if (mix_)
        mix_->mix(i, mixed, walked.data(), lse.data(), p.value_head_dim, heads.data() + i * columns);
      else
        std::copy(walked.begin(), walked.end(), heads.begin() + i * columns);
    }
    apply_gate(gate_.empty() ? all.rows.gate
                             : project(x, gate_, gate_bias_, settings_.heads_out() * settings_.gate_width()),
               heads);
    const View<const double> concatenated(heads.data(), x.rows, columns);
    const std::vector<double> y = project(concatenated, o_, o_bias_, p.width);
    for (Index i = 0; i < x.rows; ++i) std::copy_n(y.data() + i * p.width, p.width, output.row(i));
  }

 private:
  struct Prepared {
    ProjectionTwin::Rows rows;
    std::vector<std::vector<double>> scores;  // what each score option took from x
    std::vector<double> readout;
  };

  bool visible(Index i, Index j) const {
    return settings_.window == 0 || std::abs(i - j) < settings_.window || j < settings_.sinks;
  }

  // -> out [value_head_dim]; returns ln of the sum of e^s
  double attend(const Prepared& all, Index i, Index h, double* out) const {
    const ProjectionSettings& p = settings_.projection;
    const Index kv = h / p.group(), d = p.head_dim, dv = p.value_head_dim;
    const double* q = all.rows.q.data() + (i * p.num_heads + h) * d;
    TwinRow row{i, h, {}, {}, {}};
    std::vector<double> s;
    const Index last =
        settings_.causal ? i : static_cast<Index>(all.rows.k.size()) / (p.num_kv_heads * d) - 1;
    for (Index j = 0; j <= last; ++j) {
      if (!visible(i, j)) continue;
      row.keys.push_back(j);
      row.values.push_back(all.rows.v.data() + (j * p.num_value_heads() + kv / p.keys_per_value) * dv);
      row.vectors.push_back(all.rows.k.data() + (j * p.num_kv_heads + kv) * d);
      s.push_back(std::inner_product(q, q + d, row.vectors.back(), 0.0));
    }
    for (std::size_t n = 0; n < scores_.size(); ++n) scores_[n]->apply(row, all.scores[n], s);
    readout_->read(row, all.readout, s, normaliser_->weights(row, s), out, dv);
    return log_sum_exp(s);
  }

  // gate [tokens, num_heads * gate_width], heads [tokens, num_heads * value_head_dim]
  void apply_gate(const std::vector<double>& gate, std::vector<double>& heads) const {
    if (settings_.gate == Settings::Gate::none) return;
    const std::size_t repeat = heads.size() / gate.size();  // 1 elementwise, value_head_dim headwise
    for (std::size_t i = 0; i < heads.size(); ++i) heads[i] /= 1 + std::exp(-gate[i / repeat]);
  }

  Settings settings_;
  ProjectionTwin projection_;
  std::vector<double> o_, o_bias_, gate_, gate_bias_;
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
