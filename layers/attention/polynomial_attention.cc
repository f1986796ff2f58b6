#include "layers/attention/polynomial_attention.h"

#include "layers/attention/polynomial_core.h"
#include "layers/attention/projection.h"
#include "layers/attention/scalar_decay.h"
#include "layers/attention/sigmoid_gate.h"
#include "layers/attention/sketch.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

using Settings = PolynomialAttentionSettings;

SigmoidGate make_gate(const Settings& settings, const Parameters& parameters) {
  if (settings.gate == Settings::Gate::none) return {};
  return SigmoidGate(settings.projection.num_heads, settings.projection.value_head_dim,
                     &parameters.tensor("gate"),
                     settings.gate_bias ? &parameters.tensor("gate_bias") : nullptr);
}

class PolynomialAttention final : public Layer {
 public:
  PolynomialAttention(const Settings& settings, const ProjectionSettings& projection, const Grids& grids,
                      const Parameters& parameters, std::unique_ptr<Sketch> sketch)
      : settings_(settings),
        projection_(projection, parameters),
        sketch_(std::move(sketch)),
        gate_(make_gate(settings, parameters)),
        core_(settings.evaluation == Settings::Evaluation::recurrent
                  ? make_recurrent_polynomial(settings, grids)
                  : make_quadratic_polynomial(settings, grids)),
        o_(parameters.tensor("o")) {
    if (settings.decay != Settings::Decay::none)
      decay_ = ScalarDecay(&parameters.tensor("decay"), parameters.tensor("decay_bias"),
                           settings.decay_temperature, settings.projection.num_heads / settings.decays());
    if (settings.output_bias) o_bias_ = to_float(parameters.tensor("o_bias"));
    const ProjectionSettings& p = projection;
    sites_ = {head_site(p.num_heads, p.value_head_dim),
              {Site::write, {Operator::zero}, p.num_heads},
              core_->state_site()};
    if (settings.decay != Settings::Decay::none) sites_.push_back(decay_.site());
    if (settings.evaluation == Settings::Evaluation::quadratic) add_cache_sites(p.num_heads, sites_);
    add_projection_sites(p, sites_);
    if (settings.gate == Settings::Gate::sigmoid) sites_.push_back(gate_site(p.num_heads, p.value_head_dim));
  }

  Signature signature() const override { return {{settings_.projection.width}, o_.out()}; }
  std::span<const Field> fields() const override { return core_->fields(); }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Compute& compute = context.compute;
    const View<const float> x = ports.input();
    Arena::Scope scope(scratch());
    const Projected projected = projection_.take(scope, x.rows);
    const View<float> heads = scope.rows(x.rows, o_.in());
    const View<float> g = scope.rows(x.rows, decay_.heads());
    projection_.run(x, segments, projected, compute);
    decay_.run(x, segments, g, compute);
    PolynomialRows inputs{projected.q, projected.k, projected.v, g};
    if (sketch_) sketch(scope, segments, projected, inputs, compute);
    for_each_block(segments, [&](Index first, Index count) {
      const View<float> q = inputs.q.slice_rows(first, count);
      scale_rows(q, static_cast<float>(settings_.logit_scale), q, compute);
    });
    for (const Segment& segment : segments) {
      withhold_writes(segment, inputs.k, settings_.projection.head_dim);
      withhold_writes(segment, inputs.near_k, settings_.near_dim);
      withhold_writes(segment, inputs.v, settings_.projection.value_head_dim);
    }
    core_->run(segments, inputs, heads, compute);
    if (settings_.output_norm) normalise(segments, heads, compute);
    for (const Segment& segment : segments) withhold_reads(segment, heads);
    gate_.apply(x, projected.gate, segments, heads, compute);
    edit_heads(segments, settings_.projection.num_heads, heads, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index rows) {
      o_.run(heads.slice_rows(first, rows), ports.output.slice_rows(first, rows), compute);
      if (!o_bias_.empty()) add_bias(o_bias_, ports.output.slice_rows(first, rows), compute);
    });
  }

  void fold(State& state, Index boundary, Context& context) const override {
    core_->fold(state, boundary, context.compute);
  }

 private:
  void sketch(Arena::Scope& scope, std::span<const Segment> segments, const Projected& projected,
              PolynomialRows& rows, const Compute& compute) const {
    const ProjectionSettings& p = settings_.projection;
    if (settings_.near_dim > 0) {
      rows.near_q = projected.q;
      rows.near_k = projected.k;
    }
    if (sketch_->makes_rows()) {
      rows.q = scope.rows(projected.q.rows, p.num_heads * p.head_dim);
      rows.k = scope.rows(projected.k.rows, p.num_kv_heads * p.head_dim);
    }
    sketch_->run(segments, projected, rows, compute);
  }

  // A layer norm of each head without gain or bias.
  void normalise(std::span<const Segment> segments, View<float> heads, const Compute& compute) const {
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = heads.slice_rows(first, rows);
      layer_norm(block, settings_.projection.value_head_dim, 1e-5f, {}, {}, block, compute);
    });
  }

  // A zero key has no features, so its row adds nothing to sums and denominators, its own output included;
  // with an offset, whose weights are never 0, the zero value is what keeps the row out of the sums. rows
  // [rows, num_kv_heads * width]: keys or values
  void withhold_writes(const Segment& segment, View<float> rows, Index width) const {
    if (!segment.edits || width == 0) return;
    const Index group = settings_.projection.group();
    for (Index kv = 0; kv < settings_.projection.num_kv_heads; ++kv)
      if (shared_edit(segment, Site::write, Operator::zero, kv, group) ||
          shared_edit(segment, Site::state, Operator::freeze, kv, group) ||
          shared_edit(segment, Site::state, Operator::no_write, kv, group) ||
          shared_edit(segment, Site::state, Operator::delete_write, kv, group))
        fill_rows(0, rows.slice_rows(segment.first_row, segment.rows).slice_cols(kv * width, width));
  }

  void withhold_reads(const Segment& segment, View<float> heads) const {
    if (!segment.edits) return;
    const Index dv = settings_.projection.value_head_dim;
    for (Index h = 0; h < settings_.projection.num_heads; ++h)
      if (segment.edit(Site::state, Operator::zero, h) || segment.edit(Site::state, Operator::no_read, h))
        fill_rows(0, heads.slice_rows(segment.first_row, segment.rows).slice_cols(h * dv, dv));
  }

  Settings settings_;
  Projection projection_;
  std::unique_ptr<Sketch> sketch_;  // null: queries and keys as they are projected
  ScalarDecay decay_;
  SigmoidGate gate_;
  std::unique_ptr<PolynomialCore> core_;
  Linear o_;
  std::vector<float> o_bias_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

std::unique_ptr<Layer> make_polynomial_attention(const PolynomialAttentionSettings& settings,
                                                 const Grids& grids, const Parameters& parameters) {
  return std::make_unique<PolynomialAttention>(settings, settings.projection, grids, parameters, nullptr);
}

std::unique_ptr<Layer> make_polysketch_attention(const PolysketchAttentionSettings& settings,
                                                 const Grids& grids, const Parameters& parameters) {
  return std::make_unique<PolynomialAttention>(settings.core(), settings.projection, grids, parameters,
                                               std::make_unique<Sketch>(settings, parameters));
}

Kind polynomial_attention_kind() {
  Kind kind;
  kind.key = "polynomial_attention";
  kind.group = "attention";
  kind.summary = "attention with weights (q.k)^p and, if recurrent, a state of constant size";
  kind.source =
      "arXiv 2410.18613, x^p / sqrt(N); its recurrence: softmax-family 6.1, arXiv 2310.01655, 2507.04239";
  kind.examples = {
      R"({"num_heads": 4, "head_dim": 16, "degree": 2, "denominator": "one_plus_sum", "decay": "scalar"})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 10, "value_head_dim": 40, "degree": 3, "c": 0.25,
          "rope": {"theta": 10000, "dim": 6}, "qk_norm": {}, "gate": "sigmoid"})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 12, "value_head_dim": 24, "degree": 2, "denominator": "sum",
          "decay": "scalar", "decay_temperature": 4, "qk_norm": {"form": "one_plus"},
          "rope": {"theta": 10000, "layout": "interleaved"}})",
      R"({"num_heads": 2, "head_dim": 24, "value_head_dim": 33, "degree": 1, "scale_mode": "row"})",
      R"({"num_heads": 3, "head_dim": 7, "degree": 4, "denominator": "sum", "qk_norm": {}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40, "degree": 2, "denominator": "sum",
          "decay": "scalar", "rope": {"theta": 10000}, "qk_norm": {}, "evaluation": "quadratic"})",
      R"({"num_heads": 3, "head_dim": 16, "degree": 3, "scale_mode": "row", "gate": "sigmoid", "gate_bias": true,
          "evaluation": "quadratic"})",
      R"({"num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "degree": 2, "c_per_head": [0.5, 0.125]})",
      R"({"num_heads": 2, "head_dim": 8, "degree": 2, "c_per_head": [0.5, 0.125], "evaluation": "quadratic"})",
      R"({"num_heads": 2, "num_kv_heads": 1, "head_dim": 40, "degree": 4, "denominator": "one_plus_sum", "qk_norm": {},
          "evaluation": "quadratic"})",
  };
  kind.tensors = [](Config& config) {
    return polynomial_attention_tensors(read_polynomial_attention(config));
  };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return make_polynomial_attention(read_polynomial_attention(config), config.surroundings().grids,
                                     parameters);
  };
  kind.twin = make_polynomial_attention_twin;
  return kind;
}

}  // namespace plait
