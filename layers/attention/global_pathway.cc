#include "layers/attention/global_pathway.h"

#include <algorithm>
#include <array>
#include <limits>

#include "layers/reference/global_pathway.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

using Gate = GlobalPathwaySettings::Gate;
constexpr Index kSums = 0;  // field: after every token (greatest logit, mass, weighted sum of the values)

class GlobalPathway final : public Layer {
 public:
  GlobalPathway(const GlobalPathwaySettings& settings, const Parameters& parameters)
      : s_(settings),
        pool_(parameters.tensor("pool")),
        value_(parameters.tensor("value")),
        gate_(parameters.tensor("gate")),
        o_(parameters.tensor("o")),
        gate_bias_(to_float(parameters.tensor("gate_bias"))),
        sites_{head_site(1, settings.dim), gate_site(1, 1)} {
    Field& field = fields_[kSums];
    field.name = "pooled";
    field.kind = Field::Kind::log;
    field.shape = {2 + settings.dim};
    field.dtype = DType::f64;
    field.window = 2;  // the row before and its own
  }

  Signature signature() const override { return {{s_.width}, s_.width}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Compute& compute = context.compute;
    const View<const float> x = ports.input();
    Arena::Scope scope(scratch());
    const View<float> logits = scope.rows(x.rows, 1), pooled = scope.rows(x.rows, s_.dim),
                      gate = scope.rows(x.rows, s_.gate_rows());
    for_each_block(segments, [&](Index first, Index count) {
      const View<const float> rows = x.slice_rows(first, count);
      pool_.run(rows, logits.slice_rows(first, count), compute);
      value_.run(rows, pooled.slice_rows(first, count), compute);
      gate_.run(rows, gate.slice_rows(first, count), compute);
      add_bias(gate_bias_, gate.slice_rows(first, count), compute);
    });
    for (const Segment& segment : segments) accumulate(segment, logits, pooled, kernels(compute));
    edit_heads(segments, 1, pooled, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index count) {
      o_.run(pooled.slice_rows(first, count), ports.output.slice_rows(first, count), compute);
    });
    for (const Segment& segment : segments) apply_gate(segment, gate, ports.output, compute);
  }

 private:
  // values of a segment's rows := their mean with those of all tokens before, in an encoder of all tokens,
  // under the softmax of the logits. Sums are f64.
  void accumulate(const Segment& segment, View<const float> logits, View<float> values,
                  const Kernels& k) const {
    Log& log = segment.state->log(kSums);
    Arena::Scope scope(scratch());
    double* sums = scope.take<double>(2 + s_.dim);
    std::fill_n(sums, 2 + s_.dim, 0.0);
    sums[0] = -std::numeric_limits<double>::infinity();
    if (!log.present().empty() && log.present().back().end == log.end())
      std::copy_n(log.row<double>(log.end() - 1), 2 + s_.dim, sums);
    for (Index r = segment.first_row; r < segment.first_row + segment.rows; ++r) {
      absorb(logits(r, 0), values.row(r), sums, k);
      log.append(segment.position + r - segment.first_row, View<const double>(sums, 1, 2 + s_.dim));
    }
    if (s_.causal) return;
    for (Index r = segment.first_row; r < segment.first_row + segment.rows; ++r)
      std::copy_n(values.row(segment.first_row + segment.rows - 1), s_.dim, values.row(r));
  }

  // value := the mean with it
  void absorb(float logit, float* value, double* sums, const Kernels& k) const {
    const float greatest = std::max(static_cast<float>(sums[0]), logit);
    const float before[2] = {static_cast<float>(sums[0]), logit};
    float factors[2];
    k.exp_minus(before, greatest, factors, 2);
    const auto old = static_cast<double>(factors[0]), own = static_cast<double>(factors[1]);
    sums[0] = static_cast<double>(greatest);
    sums[1] = sums[1] * old + own;
    for (Index c = 0; c < s_.dim; ++c) {
      double& sum = sums[2 + c];
      sum = sum * old + own * static_cast<double>(value[c]);
      value[c] = static_cast<float>(sum / sums[1]);
    }
  }

  // gate [rows, gate_rows]: logits; their first column becomes the factor
  void apply_gate(const Segment& segment, View<float> gate, View<float> y, const Compute& compute) const {
    const Kernels& k = kernels(compute);
    const Edit* mean = segment.edit(Site::gate, Operator::mean);
    for_each_row(segment.first_row, segment.rows, compute.threads, [&](Index r) {
      float* g = gate.row(r);
      k.sigmoid(g, g, 1);
      if (s_.gate == Gate::hierarchical) {
        float share = g[2] - g[1];
        k.sigmoid(&share, &share, 1);
        g[0] *= share;
      }
      if (segment.edit(Site::gate, Operator::one)) return;
      if (mean) fill_values(*mean, 1, 0, {g, 1, 1});
      k.scale(y.row(r), g[0], y.row(r), s_.width);
    });
    segment.show(Site::gate, gate.slice_cols(0, 1));
  }

  GlobalPathwaySettings s_;
  Linear pool_, value_, gate_, o_;
  std::vector<float> gate_bias_;
  std::array<Field, 1> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind global_pathway_kind() {
  Kind kind;
  kind.key = "global_pathway";
  kind.group = "attention";
  kind.summary = "one softmax-pooled value of the tokens, gated into each: a branch beside attention";
  kind.source = "arXiv 2606.08105, global pathway";
  kind.graphs = Kind::Graphs::both;
  kind.examples = {"{}", R"({"dim": 24, "gate": "hierarchical"})"};
  kind.encoder_examples = kind.examples;
  kind.tensors = [](Config& config) { return global_pathway_tensors(read_global_pathway(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<GlobalPathway>(read_global_pathway(config), parameters);
  };
  kind.twin = make_global_pathway_twin;
  return kind;
}

}  // namespace plait
