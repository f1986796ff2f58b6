#include "layers/recurrent/mamba2.h"

#include <cmath>

#include "layers/recurrent/curvature_conditioned_query.h"
#include "layers/recurrent/decayed_sum.h"
#include "layers/recurrent/inputs.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/mamba2.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

using Norm = Mamba2Settings::Norm;

std::vector<float> vector_if(bool wanted, const Parameters& parameters, const char* name) {
  return wanted ? to_float(parameters.tensor(name)) : std::vector<float>();
}

Conditioned<DecayedSum> make_core(const Mamba2Settings& s, const Parameters& parameters, Index first_field) {
  // Conditioned queries differ between the heads of a group.
  const Index queries = s.query ? s.num_heads : s.num_groups;
  const DecayedSum::Sizes sizes{
      queries, s.num_groups, s.num_heads, s.state_dim, s.head_dim, s.chunk, DecayedSum::Decay::scalar};
  return {DecayedSum(sizes, first_field),
          first_field,
          {s.num_groups, s.num_groups, s.num_heads, s.state_dim, s.chunk, sizes.decay},
          s.query,
          query_lambdas(s.query, parameters)};
}

class Mamba2 final : public Layer {
 public:
  Mamba2(const Mamba2Settings& settings, const Parameters& parameters)
      : s_(settings),
        in_(parameters.tensor("in")),
        out_(parameters.tensor("out")),
        in_bias_(vector_if(settings.in_bias, parameters, "in_bias")),
        out_bias_(vector_if(settings.out_bias, parameters, "out_bias")),
        convolution_(settings.conv, parameters.vector("conv_weight"),
                     vector_if(settings.conv_bias, parameters, "conv_bias"), Convolution::Activation::silu),
        step_bias_(to_float(parameters.tensor("dt_bias"))),
        rate_(to_float(parameters.tensor("a_log"))),
        skip_(vector_if(settings.skip_d, parameters, "d")),
        gain_(vector_if(settings.norm != Norm::gate_only, parameters, "norm")),
        core_(make_core(settings, parameters, 1)) {
    kernels().exp(rate_.data(), rate_.data(), s_.num_heads);
    for (float& rate : rate_) rate = -rate;
    fields_.push_back(convolution_field(s_.conv_channels(), s_.conv));
    for (Field& field : core_.fields()) fields_.push_back(std::move(field));
    const Index heads = s_.num_heads, width = s_.head_dim;
    sites_ = {decay_site(heads), write_site(heads),       state_site(heads),
              conv_site(),       gate_site(heads, width), head_site(heads, width)};
    if (s_.skip_d) sites_.push_back({Site::skip_d, {Operator::zero}, heads});
  }

  Signature signature() const override { return {{in_.in()}, out_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    const Compute& compute = context.compute;
    Arena::Scope scope(scratch());
    const View<float> all = scope.rows(x.rows, s_.in_rows());
    const View<float> mixed = scope.rows(x.rows, s_.conv_channels());
    for_each_block(segments, [&](Index first, Index rows) {
      project(x.slice_rows(first, rows), all.slice_rows(first, rows), compute);
    });
    convolve(segments, kConv, all.slice_cols(s_.inner(), s_.conv_channels()), {{&convolution_, mixed}},
             compute);

    const View<float> dt = all.slice_cols(s_.inner() + s_.conv_channels(), s_.num_heads);
    const View<float> g = scope.rows(x.rows, s_.num_heads), y = scope.rows(x.rows, s_.inner());
    for_each_block(segments, [&](Index first, Index rows) {
      run_steps(dt.slice_rows(first, rows), g.slice_rows(first, rows), compute);
    });
    edit_strengths(segments, {s_.num_heads, g, {}, dt, {}});
    const View<float> inner = mixed.slice_cols(0, s_.inner());
    core_.run({mixed.slice_cols(s_.inner() + s_.groups_width(), s_.groups_width()),
               mixed.slice_cols(s_.inner(), s_.groups_width()), inner, g, dt, y},
              segments, compute);
    edit_reads(segments, s_.num_heads, y);
    add_skip(segments, inner, y, compute);
    edit_heads(segments, s_.num_heads, y, HeadEdits::but_scale);
    run_output(all.slice_cols(0, s_.inner()), y, segments, ports.output, compute);
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  static constexpr Index kConv = 0;  // field of convolution inputs

  // all = (in (input_multiplier x) + in_bias) * slice_multipliers
  void project(View<const float> x, View<float> all, const Compute& compute) const {
    if (s_.input_multiplier == 1) {
      in_.run(x, all, compute);
    } else {
      Arena::Scope scope(scratch());
      const View<float> scaled = scope.rows(x.rows, x.cols);
      scale_rows(x, static_cast<float>(s_.input_multiplier), scaled, compute);
      in_.run(scaled, all, compute);
    }
    if (s_.in_bias) add_bias(in_bias_, all, compute);
    Index first = 0;
    for (std::size_t i = 0; i < s_.slice_multipliers.size(); ++i) {
      const View<float> slice = all.slice_cols(first, s_.slices()[i]);
      if (s_.slice_multipliers[i] != 1)
        scale_rows(slice, static_cast<float>(s_.slice_multipliers[i]), slice, compute);
      first += slice.cols;
    }
  }

  // dt = clamp(softplus(dt + bias)), the write strength; g = dt A.
  void run_steps(View<float> dt, View<float> g, const Compute& compute) const {
    const Kernels& k = kernels(compute);
    add_bias(step_bias_, dt, compute);
    map_rows(k.softplus, dt, dt, compute);
    const bool clamped = s_.dt_min > 0 || std::isfinite(s_.dt_max);
    for (Index r = 0; r < dt.rows; ++r) {
      if (clamped)
        k.clamp(dt.row(r), static_cast<float>(s_.dt_min), static_cast<float>(s_.dt_max), dt.row(r), dt.cols);
      k.multiply(dt.row(r), rate_.data(), g.row(r), g.cols);
    }
  }

  // y += D x, head by head.
  void add_skip(std::span<const Segment> segments, View<const float> x, View<float> y,
                const Compute& compute) const {
    const Kernels& k = kernels(compute);
    const Index width = s_.head_dim;
    for (const Segment& segment : segments)
      for (Index h = 0; s_.skip_d && h < s_.num_heads; ++h) {
        if (segment.edit(Site::skip_d, Operator::zero, h)) continue;
        for (Index r = segment.first_row; r < segment.first_row + segment.rows; ++r)
          k.add_scaled(skip_[static_cast<std::size_t>(h)], x.row(r) + h * width, y.row(r) + h * width, width);
      }
  }

  void run_output(View<float> z, View<float> y, std::span<const Segment> segments, View<float> output,
                  const Compute& compute) const {
    const Kernels& k = kernels(compute);
    for_each_block(segments, [&](Index first, Index rows) {
      map_rows(k.silu, z.slice_rows(first, rows), z.slice_rows(first, rows), compute);
    });
    edit_gates(segments, s_.num_heads, z);
    const Index group = s_.inner() / s_.num_groups;
    const float eps = static_cast<float>(s_.norm_eps);
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = y.slice_rows(first, rows);
      if (s_.norm == Norm::norm_before_gate) rms_norm(block, group, eps, gain_, block, compute);
      zip_rows(k.multiply, block, z.slice_rows(first, rows), block, compute);
      if (s_.norm == Norm::gated_rms) rms_norm(block, group, eps, gain_, block, compute);
    });
    scale_heads(segments, s_.num_heads, y, compute);
    for_each_block(segments, [&](Index first, Index rows) {
      out_.run(y.slice_rows(first, rows), output.slice_rows(first, rows), compute);
      if (s_.out_bias) add_bias(out_bias_, output.slice_rows(first, rows), compute);
    });
  }

  Mamba2Settings s_;
  Linear in_, out_;
  std::vector<float> in_bias_, out_bias_;
  Convolution convolution_;
  std::vector<float> step_bias_, rate_, skip_, gain_;  // dt_bias, -exp(a_log), d, norm
  Conditioned<DecayedSum> core_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind mamba2_kind() {
  Kind kind;
  kind.key = "mamba2";
  kind.group = "recurrent";
  kind.summary = "state-space layer with a scalar decay per head";
  kind.source = "Dao and Gu, arXiv 2405.21060, sections 3 and 7";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32, "state_dim": 32})",
      R"({"num_heads": 4, "head_dim": 24, "state_dim": 40, "num_groups": 2, "norm": "norm_before_gate",
          "dt_min": 0.01, "dt_max": 0.5, "in_bias": true, "out_bias": true, "input_multiplier": 1.25,
          "slice_multipliers": [0.35, 0.25, 1.5, 0.5, 0.7]})",
      R"({"num_heads": 3, "head_dim": 16, "state_dim": 24, "norm": "gate_only", "skip_d": false, "conv": 3,
          "conv_bias": false, "out_bias": true})",
      R"({"num_heads": 4, "head_dim": 24, "state_dim": 16, "num_groups": 2,
          "query": {"lambda": [0.25], "normalise": true, "center": true}})"};
  kind.tensors = [](Config& config) { return mamba2_tensors(read_mamba2(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<Mamba2>(read_mamba2(config), parameters);
  };
  kind.bound_factor = 16;  // an output norm of small rows, see the page
  kind.twin = make_mamba2_twin;
  return kind;
}

}  // namespace plait
