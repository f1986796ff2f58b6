#include "layers/recurrent/gated_delta_net.h"

#include "layers/recurrent/curvature_conditioned_query.h"
#include "layers/recurrent/delta.h"
#include "layers/recurrent/delta_gates.h"
#include "layers/recurrent/inputs.h"
#include "layers/recurrent/output.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/gated_delta_net.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

constexpr float kNormEps = 1e-6f;  // of the l2 norm of queries and keys

// With conditioned queries, which differ between value heads, every value head has keys of its own as well.
Index key_heads(const GatedDeltaNetSettings& s) { return s.query ? s.num_value_heads : s.num_heads; }

Conditioned<Delta> make_core(const GatedDeltaNetSettings& s, const Parameters& parameters,
                             Index first_field) {
  const Delta::Sizes sizes{key_heads(s),     s.num_value_heads, s.head_dim,
                           s.value_head_dim, s.chunk,           Delta::Decay::scalar};
  return {Delta(sizes, first_field),
          first_field,
          {s.num_heads, key_heads(s), s.num_value_heads, s.head_dim, s.chunk, Curvature::Decay::scalar},
          s.query,
          query_lambdas(s.query, parameters)};
}

GatedOutput::Settings output_of(const GatedDeltaNetSettings& s) {
  return {s.num_value_heads, s.value_head_dim, s.gate, true, static_cast<float>(s.norm_eps)};
}

class GatedDeltaNet final : public Layer {
 public:
  GatedDeltaNet(const GatedDeltaNetSettings& settings, const Parameters& parameters)
      : s_(settings),
        inputs_(parameters, {"q", "k", "v"}, settings.conv, Convolution::Activation::silu),
        gates_(parameters, settings.negative_eigenvalues),
        core_(make_core(settings, parameters, inputs_.convolves() ? 1 : 0)),
        output_(parameters, output_of(settings)) {
    if (inputs_.convolves()) fields_.push_back(inputs_.field());
    for (Field& field : core_.fields()) fields_.push_back(std::move(field));
    const Index heads = s_.num_value_heads, width = s_.value_head_dim;
    sites_ = {decay_site(heads), write_site(heads),       erase_site(heads),
              state_site(heads), head_site(heads, width), qk_norm_site(s_.num_heads)};
    if (inputs_.convolves()) sites_.push_back(conv_site());
    if (output_.gated()) sites_.push_back(gate_site(heads, width));
  }

  Signature signature() const override { return {{inputs_.in()}, output_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    const Compute& compute = context.compute;
    const Index keys = s_.num_heads * s_.head_dim, values = s_.num_value_heads * s_.value_head_dim;
    Arena::Scope scope(scratch());
    const View<float> qkv = scope.rows(x.rows, inputs_.width());
    inputs_.run(x, qkv, segments, kConv, compute);
    const View<float> q = qkv.slice_cols(0, keys), k = qkv.slice_cols(keys, keys);
    prepare(qkv, q, k, segments, compute);

    const View<float> g = scope.rows(x.rows, s_.num_value_heads),
                      erase = scope.rows(x.rows, s_.num_value_heads),
                      write = scope.rows(x.rows, s_.num_value_heads),
                      match = scope.rows(x.rows, s_.num_value_heads);
    for_each_block(segments, [&](Index first, Index rows) {
      gates_.run(x.slice_rows(first, rows), g.slice_rows(first, rows), write.slice_rows(first, rows),
                 compute);
      copy_rows(write.slice_rows(first, rows), erase.slice_rows(first, rows));
    });
    edit_strengths(segments, {s_.num_value_heads, g, erase, write, match});

    const View<float> o = scope.rows(x.rows, values);
    View<const float> core_keys = k;
    if (key_heads(s_) != s_.num_heads) core_keys = repeat_keys(k, segments, scope);
    core_.run({q, core_keys, qkv.slice_cols(2 * keys, values), g, erase, write, o, match}, segments, compute);
    output_.run(x, o, segments, ports.output, compute);
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  static constexpr Index kConv = 0;  // field of convolution inputs

  // Activation, norms and scale of what the projections gave.
  void prepare(View<float> qkv, View<float> q, View<float> k, std::span<const Segment> segments,
               const Compute& compute) const {
    if (!inputs_.convolves())  // the convolution brings it along
      for_each_block(segments, [&](Index first, Index rows) {
        const View<float> block = qkv.slice_rows(first, rows);
        map_rows(kernels(compute).silu, block, block, compute);
      });
    normalise_heads(segments, s_.num_heads, q, kNormEps, static_cast<float>(s_.scale), compute);
    normalise_heads(segments, s_.num_heads, k, kNormEps, 1, compute);
  }

  // A key head's columns once for each of its value heads.
  View<const float> repeat_keys(View<const float> k, std::span<const Segment> segments,
                                Arena::Scope& scope) const {
    const Index width = s_.head_dim, each = s_.num_value_heads / s_.num_heads;
    const View<float> all = scope.rows(k.rows, s_.num_value_heads * width);
    for (const Segment& segment : segments)
      for (Index h = 0; h < s_.num_value_heads; ++h)
        copy_rows(rows_of(segment, k).slice_cols(h / each * width, width),
                  rows_of(segment, all).slice_cols(h * width, width));
    return all;
  }

  GatedDeltaNetSettings s_;
  ConvolvedInputs inputs_;
  DeltaGates gates_;
  Conditioned<Delta> core_;
  GatedOutput output_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind gated_delta_net_kind() {
  Kind kind;
  kind.key = "gated_delta_net";
  kind.group = "recurrent";
  kind.summary = "delta rule with a decaying matrix state";
  kind.source = "Yang, Kautz, Hatamizadeh, arXiv 2412.06464, equation 10";
  kind.examples = {R"({"num_heads": 2, "head_dim": 32, "value_head_dim": 32})",
                   R"({"num_heads": 2, "head_dim": 24, "value_head_dim": 40, "negative_eigenvalues": true,
          "gate": "sigmoid", "gate_bias": true})",
                   R"({"num_heads": 1, "num_value_heads": 2, "head_dim": 40, "value_head_dim": 24, "conv": 0,
          "gate": "none"})",
                   R"({"num_heads": 1, "num_value_heads": 2, "head_dim": 24, "value_head_dim": 40,
          "query": {"lambda": [0.75]}})"};
  kind.tensors = [](Config& config) { return gated_delta_net_tensors(read_gated_delta_net(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<GatedDeltaNet>(read_gated_delta_net(config), parameters);
  };
  kind.bound_factor = 16;  // an output norm of small rows, see the page
  kind.twin = make_gated_delta_net_twin;
  return kind;
}

}  // namespace plait
