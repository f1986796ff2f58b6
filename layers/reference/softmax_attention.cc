#include "layers/reference/softmax_attention.h"

#include <algorithm>
#include <cmath>

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

void read_score_and_readout(Config& config, Settings& s) {
  s.score = read_scores(config, s.shape());
  if (const auto* integral = std::get_if<IntegralAttention>(&s.score.front()))
    slice_rope(config, *integral, s.projection);
  s.window = config.integer_or("window", 0, "latest keys a row sees, its own included; 0 = all");
  s.sinks = config.integer_or("sinks", 0, "first keys a row sees besides its window");
  if (s.sinks > 0 && s.window == 0)
    config.refuse("sinks is ", s.sinks, ", but without a window every row sees the first keys anyway");
  s.normaliser = read_normaliser(config);
  s.readout = read_readout(config, s.normaliser);
}

void read_gate(Config& config, Settings& s) {
  s.gate =
      static_cast<Settings::Gate>(config.choice("gate", {"none", "sigmoid"}, "factor on a head's output"));
  s.granularity = static_cast<Settings::Granularity>(
      config.choice("gate_granularity", {"elementwise", "headwise"}, "a factor per column or per head"));
  s.packing = static_cast<Settings::Packing>(config.choice(
      "gate_packing", {"separate", "per_query_head"}, "where the gate's rows lie: tensor gate, or in q"));
  if (s.gate == Settings::Gate::none &&
      (s.granularity != Settings::Granularity::elementwise || s.packing != Settings::Packing::separate))
    config.refuse("gate_granularity and gate_packing mean nothing while gate is none");
  if (s.packing == Settings::Packing::per_query_head) s.projection.packed_gate = s.gate_width();
}

}  // namespace

Index SoftmaxAttentionSettings::gate_width() const {
  if (gate == Gate::none) return 0;
  return granularity == Granularity::headwise ? 1 : projection.value_head_dim;
}

AttentionShape SoftmaxAttentionSettings::shape() const {
  return {projection.width, projection.num_heads, projection.head_dim, projection.value_head_dim};
}

SoftmaxAttentionSettings read_softmax_attention(Config& config) {
  Settings s;
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
  specs.push_back({"o",
                   {p.width, p.num_heads * p.value_head_dim},
                   Init::normal,
                   "[width, num_heads * value_head_dim]",
                   true});
  if (s.output_bias) specs.push_back({"o_bias", {p.width}, Init::small, "[width]"});
  const auto add = [&](const std::vector<TensorSpec>& more) {
    specs.insert(specs.end(), more.begin(), more.end());
  };
  for (const ScoreOption& option : s.score) add(tensors_of(option, s.shape()));
  add(tensors_of(s.normaliser, s.shape()));
  add(tensors_of(s.readout, s.shape()));
  if (s.gate != Settings::Gate::none && s.packing == Settings::Packing::separate) {
    const bool headwise = s.granularity == Settings::Granularity::headwise;
    specs.push_back({"gate",
                     {p.num_heads * s.gate_width(), p.width},
                     Init::normal,
                     headwise ? "[num_heads, width]" : "[num_heads * value_head_dim, width]",
                     true});
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
        normaliser_(make_twin(settings.normaliser, parameters)),
        readout_(make_twin(settings.readout, settings.shape(), parameters)) {
    for (const ScoreOption& option : settings.score)
      scores_.push_back(make_twin(option, settings.shape(), parameters));
  }

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const ProjectionSettings& p = settings_.projection;
    const View<const double> x = inputs[0];
    Prepared all{projection_.run(x), {}, readout_->prepare(x)};
    for (const auto& score : scores_) all.scores.push_back(score->prepare(x));
    std::vector<double> heads(static_cast<std::size_t>(x.rows * p.num_heads * p.value_head_dim));
    for (Index i = 0; i < x.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h)
        attend(all, i, h, heads.data() + (i * p.num_heads + h) * p.value_head_dim);
    apply_gate(gate_.empty() ? all.rows.gate : project(x, gate_, {}, p.num_heads * settings_.gate_width()),
               heads);
    const View<const double> concatenated(heads.data(), x.rows, p.num_heads * p.value_head_dim);
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
    return settings_.window == 0 || j > i - settings_.window || j < settings_.sinks;
  }

  // out [value_head_dim]
  void attend(const Prepared& all, Index i, Index h, double* out) const {
    const ProjectionSettings& p = settings_.projection;
    const Index kv = h / p.group(), d = p.head_dim, dv = p.value_head_dim;
    const double* q = all.rows.q.data() + (i * p.num_heads + h) * d;
    TwinRow row{i, h, {}, {}};
    std::vector<double> s;
    for (Index j = 0; j <= i; ++j) {
      if (!visible(i, j)) continue;
      row.keys.push_back(j);
      row.values.push_back(all.rows.v.data() + (j * p.num_kv_heads + kv) * dv);
      double& dot = s.emplace_back(0);
      for (Index c = 0; c < d; ++c)
        dot += q[c] * all.rows.k[static_cast<std::size_t>((j * p.num_kv_heads + kv) * d + c)];
    }
    for (std::size_t n = 0; n < scores_.size(); ++n) scores_[n]->apply(row, all.scores[n], s);
    readout_->read(row, all.readout, s, normaliser_->weights(row, s), out, dv);
  }

  // gate [tokens, num_heads * gate_width], heads [tokens, num_heads * value_head_dim]
  void apply_gate(const std::vector<double>& gate, std::vector<double>& heads) const {
    if (settings_.gate == Settings::Gate::none) return;
    const std::size_t repeat = heads.size() / gate.size();  // 1 elementwise, value_head_dim headwise
    for (std::size_t i = 0; i < heads.size(); ++i) heads[i] /= 1 + std::exp(-gate[i / repeat]);
  }

  Settings settings_;
  ProjectionTwin projection_;
  std::vector<double> o_, o_bias_, gate_;
  std::vector<std::unique_ptr<ScoreTwin>> scores_;
  std::unique_ptr<NormaliserTwin> normaliser_;
  std::unique_ptr<ReadoutTwin> readout_;
};

}  // namespace

std::shared_ptr<Twin> make_softmax_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<SoftmaxAttentionTwin>(read_softmax_attention(config), parameters);
}

}  // namespace plait
