#include "layers/attention/softmax_attention.h"

#include <optional>

#include "layers/attention/head_mix.h"
#include "layers/attention/laser_attention.h"
#include "layers/attention/projection.h"
#include "layers/attention/row_standardise.h"
#include "layers/attention/sigmoid_gate.h"
#include "layers/attention/stages.h"
#include "layers/attention/tiles.h"
#include "layers/reference/softmax_attention.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

constexpr Index kKeys = 0, kValues = 1, kShift = 2;  // fields

SigmoidGate make_gate(const SoftmaxAttentionSettings& settings, const Parameters& parameters) {
  if (settings.gate == SoftmaxAttentionSettings::Gate::none) return {};
  const bool separate = settings.packing == SoftmaxAttentionSettings::Packing::separate;
  return SigmoidGate(settings.heads_out(), settings.gate_width(),
                     separate ? &parameters.tensor("gate") : nullptr,
                     settings.gate_bias ? &parameters.tensor("gate_bias") : nullptr);
}

class SoftmaxAttention final : public Layer {
 public:
  SoftmaxAttention(const SoftmaxAttentionSettings& settings, const Grids& grids, const Parameters& parameters)
      : settings_(settings),
        grids_(grids),
        projection_(settings.projection, parameters, kShift),
        levels_(key_levels(settings.score.front())),
        gate_(make_gate(settings, parameters)),
        o_(parameters.tensor("o")) {
    if (settings.output_norm) norm_gain_ = to_float(parameters.tensor("o_norm"));
    if (settings.output_bias) o_bias_ = to_float(parameters.tensor("o_bias"));
    const ProjectionSettings& p = settings.projection;
    sites_ = {head_site(settings.heads_out(), p.value_head_dim)};
    StageParts parts{settings_, parameters, fields_, sites_};
    parts.add(parts.log("k", p.num_kv_heads * p.head_dim, settings.cache, Field::Order::columns));
    parts.add(parts.log("v", p.num_value_heads() * p.value_head_dim, settings.cache, Field::Order::rows));
    for (const Field& field : projection_.shift_fields()) parts.add(field);
    rule_.emplace(parts);
    mix_ = make_head_mix(settings, parameters);
    add_cache_sites(p.num_heads, sites_);
    add_projection_sites(p, sites_);
    // Without the norm that bounds the logits nothing is known to be beyond reach.
    if (const KeyPruning* pruning = pruning_of(settings.score); pruning && pruning->bound == 0)
      std::erase_if(sites_, [](const SiteSpec& spec) { return spec.site == Site::qk_norm; });
    if (settings.gate != SoftmaxAttentionSettings::Gate::none)
      sites_.push_back(gate_site(settings.heads_out(), settings.gate_width()));
  }

  Signature signature() const override { return {{settings_.projection.width}, o_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Compute& compute = context.compute;
    const View<const float> x = ports.input();
    Arena::Scope scope(scratch());
    const Projected rows = projection_.take(scope, x.rows);
    const View<float> heads = scope.rows(x.rows, o_.in());
    projection_.run(x, segments, rows, compute);
    if (mix_) {
      const View<float> walked = scope.rows(
          x.rows, settings_.projection.num_heads * rule_->out_width(settings_.projection.value_head_dim));
      attend(x, segments, rows, walked, compute);
      mix_->run(x, segments, walked, heads, compute);
    } else {
      attend(x, segments, rows, heads, compute);
    }
    if (settings_.output_norm)
      for_each_block(segments, [&](Index first, Index count) {
        const View<float> block = heads.slice_rows(first, count);
        rms_norm(block, settings_.projection.value_head_dim, static_cast<float>(*settings_.output_norm),
                 norm_gain_, block, compute);
      });
    gate_.apply(x, rows.gate, segments, heads, compute);
    edit_heads(segments, settings_.heads_out(), heads, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index count) {
      const View<float> y = ports.output.slice_rows(first, count);
      o_.run(heads.slice_rows(first, count), y, compute);
      if (!o_bias_.empty()) add_bias(o_bias_, y, compute);
    });
  }

 private:
  void attend(View<const float> x, std::span<const Segment> segments, const Projected& projected,
              View<float> heads, const Compute& compute) const {
    const ProjectionSettings& p = settings_.projection;
    const Index sides = rule_->side_field() ? p.num_heads : 0;
    Arena::Scope scope(scratch());
    const RowNumbers rows{x,
                          scope.rows(x.rows, rule_->numbers()),
                          {scope.take<double>(x.rows * sides), x.rows, sides},
                          projected.v};
    rule_->prepare(rows, segments, compute);
    for (const Segment& segment : segments) {
      segment.state->log(kKeys).append(segment.position,
                                       projected.k.slice_rows(segment.first_row, segment.rows));
      segment.state->log(kValues).append(segment.position,
                                         projected.v.slice_rows(segment.first_row, segment.rows));
    }
    const View<const float> seconds = second_queries(x, segments, scope, compute);
    if (const Score* score = rule_->standardised()) {
      const View<float> moments = rows.numbers.slice_cols(*score->moments(), 2 * p.num_heads);
      walk(MomentsRule(*rule_), segments, projected.q, rows, {}, 0, moments, compute);
    }
    if (const std::optional<Index> masses = rule_->masses()) {
      const View<float> found = rows.numbers.slice_cols(*masses, 2 * p.num_heads);
      walk(MassRule(*rule_), segments, projected.q, rows, {}, 0, found, compute);
    }
    walk(*rule_, segments, projected.q, rows, seconds, p.value_head_dim, heads, compute);
  }

  // All rows over the cached keys. value_width: columns of the values that are read; out [rows, num_heads *
  // columns of the rule's output]
  void walk(const KeyRule& rule, std::span<const Segment> segments, View<const float> q,
            const RowNumbers& rows, View<const float> seconds, Index value_width, View<float> out,
            const Compute& compute) const {
    const ProjectionSettings& p = settings_.projection;
    const std::optional<Index> side = rule_->side_field();
    Tiles tiles(p, out.cols / p.num_heads);
    for (const Segment& segment : segments)
      tiles.add(segment,
                {segment.state->log(kKeys),
                 segment.state->log(kValues),
                 side ? &segment.state->log(*side) : nullptr,
                 {settings_.window, settings_.sinks, settings_.causal},
                 side ? View<const double>(rows.sides) : View<const double>(),
                 rows.numbers,
                 seconds,
                 rule_->furthest_side()},
                q, out);
    walk_keys(tiles.all(), rule, p.head_dim, value_width, grids_, compute, levels_);
  }

  View<float> second_queries(View<const float> x, std::span<const Segment> segments, Arena::Scope& scope,
                             const Compute& compute) const {
    if (!rule_->second_logits()) return {};
    const ProjectionSettings& p = settings_.projection;
    const View<float> seconds = scope.rows(x.rows, p.num_heads * p.head_dim);
    projection_.second_queries(x, segments, seconds, compute);
    return seconds;
  }

  SoftmaxAttentionSettings settings_;
  Grids grids_;
  Projection projection_;
  std::vector<KeyLevel> levels_;
  std::optional<StagedRule> rule_;
  std::unique_ptr<HeadMix> mix_;  // null: heads stay as they are
  SigmoidGate gate_;
  Linear o_;
  std::vector<float> o_bias_, norm_gain_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind softmax_attention_kind() {
  Kind kind;
  kind.key = "softmax_attention";
  kind.group = "attention";
  kind.summary = "attention over cached keys: softmax and its relatives, grouped heads, rope, window, gate";
  kind.source = "Vaswani et al., arXiv 1706.03762, section 3.2; options: score.md, normaliser.md, readout.md";
  kind.examples = {
      R"({"num_heads": 4, "head_dim": 16, "rope": {"theta": 10000}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40, "window": 37, "sinks": 3,
          "rope": {"theta": 1e6, "dim": 10, "layout": "interleaved"}, "qk_norm": {"form": "one_plus"},
          "normaliser": "sink_softmax", "gate": "sigmoid", "gate_packing": "per_query_head"})",
      R"({"num_heads": 3, "head_dim": 40, "bias": true, "output_bias": true, "input_multiplier": 1.25,
          "key_multiplier": 0.39, "scale": 0.2, "normaliser": "softmax_one",
          "gate": "sigmoid", "gate_granularity": "headwise", "window": 9})",
      R"({"num_heads": 6, "num_kv_heads": 2, "head_dim": 32, "qk_norm": {"eps": 1e-5}, "gate": "sigmoid",
          "rope": {"theta": 10000, "dim": 16, "scaling": {"type": "yarn", "factor": 4,
                   "original_max_position_embeddings": 64}}})",
      R"({"num_heads": 5, "num_kv_heads": 1, "head_dim": 8, "value_head_dim": 72, "window": 16, "sinks": 20,
          "gate": "sigmoid", "gate_granularity": "headwise", "gate_packing": "per_query_head",
          "rope": {"theta": 500000, "scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 1,
                   "high_freq_factor": 4, "original_max_position_embeddings": 128}}})",
      R"({"num_heads": 2, "head_dim": 16, "window": 64, "sinks": 1,
          "rope": {"theta": 10000, "scaling": {"type": "linear", "factor": 2.5}}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "gate": "sigmoid", "gate_packing": "per_kv_group"})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "gate": "sigmoid", "gate_packing": "per_kv_group",
          "gate_granularity": "headwise", "qk_norm": {}, "rope": {"theta": 10000}})",
      R"({"num_heads": 2, "head_dim": 16, "gate": "sigmoid", "gate_bias": true})",
      // score
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "scalable_softmax", "alibi"],
          "window": 40})",
      R"({"num_heads": 3, "head_dim": 16, "score": ["scaled_dot", "alibi", "scalable_softmax",
          "logit_softcap"],
          "scalable_softmax": {"bias": true, "ssmax_replaces_scale": true}, "logit_softcap": {"cap": 5}})",
      R"({"num_heads": 2, "head_dim": 24, "score": ["integral_attention"],
          "integral_attention": {"signals": 3},
          "rope": {"theta": 10000}})",
      R"({"num_heads": 2, "head_dim": 12, "score": ["integral_attention"], "rope": {"theta": 10000},
          "integral_attention": {"signals": 2, "rope_per_signal": false}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "score": ["mlr_attention"],
          "qk_norm": {"type": "layer"}, "mlr_attention": {"ranks": [8, 0, 5, 3], "block_size": 160, "divide_by": "levels"}})",
      R"({"num_heads": 2, "head_dim": 24, "score": ["mlr_attention", "alibi"], "window": 70, "sinks": 3,
          "mlr_attention": {"ranks": [8, 8, 8], "block_size": 48, "divide_by": "shared_levels"}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 12, "score": ["bilinear_mlr"],
          "qk_norm": {"type": "layer", "form": "one_plus", "bias": false},
          "bilinear_mlr": {"ranks": [4, 5, 0, 3], "scale": "mup", "divide_by_levels": true}})",
      R"({"num_heads": 2, "head_dim": 8, "score": ["bilinear_mlr", "scalable_softmax"], "window": 40,
          "bilinear_mlr": {"ranks": [2, 6]}})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["bilinear_btt"], "qk_norm": {"type": "layer"},
          "gate": "sigmoid"})",
      R"({"num_heads": 3, "head_dim": 8, "score": ["bilinear_btt", "logit_softcap"], "readout": "laser_attention",
          "bilinear_btt": {"rank": 2, "scale": "mup"}, "qk_norm": {}})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "focal_attention"]})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "focal_attention"],
          "focal_attention": {"mode": "per_token", "tau_min": 2, "tau_max": 9}})",
      R"({"num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "score": ["scaled_dot", "focal_attention"],
          "focal_attention": {"mode": "prefix_mean", "tau_min": 0.1}, "window": 50, "sinks": 2})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "scaled_signed_averaging"]})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "sin_softmax"]})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "row_standardise", "sin_softmax"], "scale": 1,
          "sin_softmax": {"scale_after": true}, "window": 40})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "score": ["scaled_dot",
          "forgetting_attention"]})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "forgetting_attention"], "window": 33,
          "sinks": 1,
          "forgetting_attention": {"type": "bias_only"}, "rope": {"theta": 500000}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "score": ["scaled_dot", "forgetting_attention"], "scale": 0.02,
          "qk_norm": {}, "prune": "adaptive_computation_pruning", "adaptive_computation_pruning": {"max_length": 200}})",
      R"({"num_heads": 1, "head_dim": 16, "score": ["scaled_dot", "forgetting_attention"], "scale": 0.02,
          "prune": "adaptive_computation_pruning",
          "adaptive_computation_pruning": {"max_length": 200, "bound": 2, "log_tol": -3}})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "alibi", "row_standardise"], "window": 30})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "score": ["scaled_dot", "row_standardise"], "scale": 1,
          "row_standardise": {"scale_after": true}, "normaliser": "periodic_softmax"})",
      // FoX-Pro's block
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "value_head_dim": 20, "shift_linear": true,
          "score": ["scaled_dot", "forgetting_attention"], "qk_norm": {"gains": "per_head"}, "output_norm": {},
          "gate": "sigmoid"})",
      R"({"num_heads": 2, "head_dim": 16, "shift_linear": true, "window": 30, "cache": "f16", "bias": true,
          "rope": {"theta": 10000}})",
      // narrow caches
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40, "window": 37, "sinks": 3,
          "rope": {"theta": 10000}, "cache": "bf16"})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 20, "qk_norm": {}, "cache": "f16",
          "score": ["scaled_dot", "forgetting_attention"], "readout": "parallax_attention"})",
      // normaliser
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "softermax"})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "softermax", "softermax": {"logits": "log2e"}})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "cog_attention"})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "sigmoid_attention", "score": ["scaled_dot", "alibi"],
          "sigmoid_attention": {"bias_mode": "neg_log_n", "n": 1024, "t": 0.5}})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "sigmoid_attention", "window": 40,
          "sigmoid_attention": {"bias_mode": "neg_log_ni", "row_scale": "inv_sqrt_n"}})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "sigmoid_attention",
          "sigmoid_attention": {"row_scale": "inv_n"}})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "periodic_softmax"})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "periodic_softmax", "scale": 0.03,
          "periodic_softmax": {"function": "siren"}})",  // small logits: siren has a pole at pi / 2
      R"({"num_heads": 1, "head_dim": 16, "normaliser": "periodic_softmax", "scale": 0.03,
          "periodic_softmax": {"function": "cos"}})",
      // A bias gives the logits, and so their sines, one sign.
      R"({"num_heads": 1, "head_dim": 16, "normaliser": "periodic_softmax", "scale": 0.01, "window": 5,
          "score": ["scaled_dot", "alibi"], "alibi": {"slopes": [0.3]}, "periodic_softmax": {"function": "sin"}})",
      R"({"num_heads": 1, "head_dim": 16, "normaliser": "periodic_softmax",
          "periodic_softmax": {"function": "sin2"}})",
      R"({"num_heads": 1, "head_dim": 16, "normaliser": "periodic_softmax", "scale": 0.03,
          "periodic_softmax": {"function": "one_plus_sin10", "eps": 1e-5}})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "taylor_softmax", "taylor_softmax": {"order": 4}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "normaliser": "stick_breaking"})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "stick_breaking", "stick_breaking": {"attend_current": true},
          "window": 70, "sinks": 3})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "linear_unnormalised", "window": 20})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "erf_unnormalised",
          "erf_unnormalised": {"c": -0.5}})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "softplus_normalised"})",
      // readout
      R"({"num_heads": 2, "head_dim": 16, "value_head_dim": 24, "readout": "self_adjust_softmax"})",
      R"({"num_heads": 2, "head_dim": 16, "readout": "self_adjust_softmax", "window": 30,
          "self_adjust_softmax": {"variant": "shifted"}})",
      R"({"num_heads": 2, "head_dim": 16, "readout": "self_adjust_softmax",
          "self_adjust_softmax": {"variant": "plain"}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "readout": "affine_scaled_attention",
          "window": 45})",
      R"({"num_heads": 2, "head_dim": 16, "readout": "affine_scaled_attention", "normaliser": "softermax",
          "affine_scaled_attention": {"gate": "clipped_linear", "bias": true}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 12, "value_head_dim": 24, "readout": "differential_attention",
          "differential_attention": {"version": 1, "layer_index": 3}, "rope": {"theta": 10000, "layout": "interleaved"}})",
      R"({"num_heads": 8, "num_kv_heads": 4, "head_dim": 10, "value_head_dim": 20, "readout": "differential_attention",
          "differential_attention": {"version": 1}, "normaliser": "softmax_one", "window": 50})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "readout": "differential_attention", "gate": "sigmoid"})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "value_head_dim": 24, "readout": "parallax_attention",
          "rope": {"theta": 10000, "dim": 8}})",
      R"({"num_heads": 2, "head_dim": 12, "readout": "parallax_attention", "window": 40, "qk_norm": {}, "bias": true})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "value_head_dim": 24, "readout": "laser_attention"})",
      R"({"num_heads": 2, "head_dim": 16, "readout": "laser_attention", "score": ["scaled_dot", "alibi"], "window": 40,
          "sinks": 2})",
      R"({"num_heads": 3, "head_dim": 16, "value_head_dim": 40, "readout": "bayes_softmax", "window": 60, "sinks": 1})",
  };
  kind.graphs = Kind::Graphs::both;
  kind.encoder_examples = {
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "rope": {"theta": 10000}, "gate": "sigmoid"})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40, "window": 37, "sinks": 3,
          "qk_norm": {}, "normaliser": "sink_softmax"})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "focal_attention"], "scale": 0.02,
          "focal_attention": {"mode": "full_mean", "tau_min": 0.05}})",
      R"({"num_heads": 2, "head_dim": 16, "score": ["scaled_dot", "scalable_softmax", "row_standardise"],
          "window": 70})",
      R"({"num_heads": 2, "head_dim": 16, "normaliser": "sigmoid_attention", "window": 40,
          "sigmoid_attention": {"bias_mode": "neg_log_ni"}})",
      R"({"num_heads": 2, "head_dim": 16, "readout": "laser_attention", "window": 40})",
      R"({"num_heads": 2, "head_dim": 24, "score": ["mlr_attention"],
          "mlr_attention": {"ranks": [8, 8, 8], "block_size": 48, "divide_by": "shared_levels"}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "score": ["mlr_attention"], "window": 70, "sinks": 3,
          "mlr_attention": {"ranks": [4, 0, 9, 3], "block_size": 160, "divide_by": "shared_levels"}})",
  };
  kind.tensors = [](Config& config) { return softmax_attention_tensors(read_softmax_attention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<SoftmaxAttention>(read_softmax_attention(config), config.surroundings().grids,
                                              parameters);
  };
  kind.twin = make_softmax_attention_twin;
  return kind;
}

}  // namespace plait
