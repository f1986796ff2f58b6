#include "layers/reference/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace plait {
namespace {

using Settings = SoftmaxAttentionSettings;

void read_score_and_readout(Config& config, Settings& s) {
  s.scale = config.number_or("scale", 0, "factor on q.k; 0 = 1 / sqrt(head_dim)");
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.projection.head_dim));
  s.score = config.texts_or("score", {"scaled_dot"}, "transforms of a logit, in this order");
  for (const std::string& name : s.score)
    if (name != "scaled_dot") config.refuse("score '", name, "' is unknown; this version has scaled_dot");
  if (s.score.size() != 1)
    config.refuse("score lists ", s.score.size(),
                  " transforms, but scaled_dot stands alone and exactly once");
  s.window = config.integer_or("window", 0, "latest keys a row sees, its own included; 0 = all");
  s.sinks = config.integer_or("sinks", 0, "first keys a row sees besides its window");
  if (s.sinks > 0 && s.window == 0)
    config.refuse("sinks is ", s.sinks, ", but without a window every row sees the first keys anyway");
  s.normaliser = static_cast<Settings::Normaliser>(
      config.choice("normaliser", {"softmax", "softmax_one", "sink_softmax"},
                    "denominator: plain, plus exp(0), plus exp(sink)"));
  s.readout = config.text_or("readout", "mean", "what is made of the weighted values");
  if (s.readout != "mean") config.refuse("readout '", s.readout, "' is unknown; this version has mean");
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
  if (s.normaliser == Settings::Normaliser::sink_softmax)
    specs.push_back({"sinks", {p.num_heads}, Init::small, "[num_heads]"});
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
        sinks_(optional_tensor(parameters, "sinks")) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const ProjectionSettings& p = settings_.projection;
    const View<const double> x = inputs[0];
    const ProjectionTwin::Rows rows = projection_.run(x);
    std::vector<double> heads(static_cast<std::size_t>(x.rows * p.num_heads * p.value_head_dim));
    for (Index i = 0; i < x.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h)
        attend(rows, i, h, heads.data() + (i * p.num_heads + h) * p.value_head_dim);
    apply_gate(gate_.empty() ? rows.gate : project(x, gate_, {}, p.num_heads * settings_.gate_width()),
               heads);
    const View<const double> all(heads.data(), x.rows, p.num_heads * p.value_head_dim);
    const std::vector<double> y = project(all, o_, o_bias_, p.width);
    for (Index i = 0; i < x.rows; ++i) std::copy_n(y.data() + i * p.width, p.width, output.row(i));
  }

 private:
  bool visible(Index i, Index j) const {
    return settings_.window == 0 || j > i - settings_.window || j < settings_.sinks;
  }

  // out [value_head_dim]
  void attend(const ProjectionTwin::Rows& rows, Index i, Index h, double* out) const {
    const ProjectionSettings& p = settings_.projection;
    const Index kv = h / p.group(), d = p.head_dim, dv = p.value_head_dim;
    const double* q = rows.q.data() + (i * p.num_heads + h) * d;
    std::vector<double> s(static_cast<std::size_t>(i + 1), -std::numeric_limits<double>::infinity());
    for (Index j = 0; j <= i; ++j) {
      if (!visible(i, j)) continue;
      double dot = 0;
      for (Index c = 0; c < d; ++c)
        dot += q[c] * rows.k[static_cast<std::size_t>((j * p.num_kv_heads + kv) * d + c)];
      s[static_cast<std::size_t>(j)] = settings_.scale * dot;
    }
    const double sink = settings_.normaliser == Settings::Normaliser::softmax ? s[static_cast<std::size_t>(i)]
                        : sinks_.empty()                                      ? 0.0
                                         : sinks_[static_cast<std::size_t>(h)];
    const double maximum = std::max(sink, *std::max_element(s.begin(), s.end()));
    double mass = settings_.normaliser == Settings::Normaliser::softmax ? 0 : std::exp(sink - maximum);
    for (double& weight : s) mass += weight = std::exp(weight - maximum);
    for (Index j = 0; j <= i; ++j)
      for (Index c = 0; c < dv; ++c)
        out[c] += s[static_cast<std::size_t>(j)] / mass *
                  rows.v[static_cast<std::size_t>((j * p.num_kv_heads + kv) * dv + c)];
  }

  // gate [tokens, num_heads * gate_width], heads [tokens, num_heads * value_head_dim]
  void apply_gate(const std::vector<double>& gate, std::vector<double>& heads) const {
    if (settings_.gate == Settings::Gate::none) return;
    const std::size_t repeat = heads.size() / gate.size();  // 1 elementwise, value_head_dim headwise
    for (std::size_t i = 0; i < heads.size(); ++i) heads[i] /= 1 + std::exp(-gate[i / repeat]);
  }

  Settings settings_;
  ProjectionTwin projection_;
  std::vector<double> o_, o_bias_, gate_, sinks_;
};

}  // namespace

std::shared_ptr<Twin> make_softmax_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<SoftmaxAttentionTwin>(read_softmax_attention(config), parameters);
}

}  // namespace plait
