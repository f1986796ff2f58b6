#include "layers/recurrent/gated_linear_attention.h"

#include "layers/recurrent/curvature_conditioned_query.h"
#include "layers/recurrent/decayed_sum.h"
#include "layers/recurrent/inputs.h"
#include "layers/recurrent/output.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/gated_linear_attention.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

GatedOutput::Settings output_of(const GatedLinearAttentionSettings& s) {
  return {s.num_heads, s.value_head_dim, s.gate, true, static_cast<float>(s.norm_eps)};
}

Conditioned<DecayedSum> make_core(const GatedLinearAttentionSettings& s, const Parameters& parameters,
                                  Index first_field) {
  const DecayedSum::Sizes sizes{s.num_heads,
                                s.num_kv_heads,
                                s.num_kv_heads,
                                s.head_dim,
                                s.value_head_dim,
                                s.chunk,
                                DecayedSum::Decay::channelwise};
  return {DecayedSum(sizes, first_field),
          first_field,
          {s.num_heads, s.num_kv_heads, s.num_kv_heads, s.head_dim, s.chunk, sizes.decay},
          s.query,
          query_lambdas(s.query, parameters)};
}

class GatedLinearAttention final : public Layer {
 public:
  GatedLinearAttention(const GatedLinearAttentionSettings& settings, const Parameters& parameters)
      : s_(settings),
        inputs_(parameters, {"q", "k", "v"}, settings.conv, Convolution::Activation::silu),
        decay_0_(parameters.tensor("decay_0")),
        decay_1_(parameters.tensor("decay_1")),
        decay_bias_(to_float(parameters.tensor("decay_bias"))),
        core_(make_core(settings, parameters, inputs_.convolves() ? 1 : 0)),
        output_(parameters, output_of(settings)) {
    if (inputs_.convolves()) fields_.push_back(inputs_.field());
    for (Field& field : core_.fields()) fields_.push_back(std::move(field));
    const Index heads = s_.num_heads, width = s_.value_head_dim;
    sites_ = {decay_site(s_.num_kv_heads, s_.head_dim), write_site(s_.num_kv_heads), state_site(heads),
              head_site(heads, width)};
    if (inputs_.convolves()) sites_.push_back(conv_site());
    if (output_.gated()) sites_.push_back(gate_site(heads, width));
  }

  Signature signature() const override { return {{inputs_.in()}, output_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    const Compute& compute = context.compute;
    const Index queries = s_.num_heads * s_.head_dim, keys = s_.num_kv_heads * s_.head_dim;
    Arena::Scope scope(scratch());
    const View<float> qkv = scope.rows(x.rows, inputs_.width()), g = scope.rows(x.rows, keys),
                      write = scope.rows(x.rows, s_.num_kv_heads);
    inputs_.run(x, qkv, segments, kConv, compute);
    const View<float> q = qkv.slice_cols(0, queries);
    for_each_block(segments, [&](Index first, Index rows) {
      const auto block = [&](auto all) { return all.slice_rows(first, rows); };
      scale_rows(block(q), static_cast<float>(s_.scale), block(q), compute);
      run_decays(block(x), block(g), compute);
      fill_rows(1, block(write));
    });
    edit_strengths(segments, {s_.num_kv_heads, g, {}, write, {}});

    const View<float> o = scope.rows(x.rows, s_.num_heads * s_.value_head_dim);
    core_.run({q, qkv.slice_cols(queries, keys), qkv.slice_cols(queries + keys, qkv.cols - queries - keys), g,
               write, o},
              segments, compute);
    output_.run(x, o, segments, ports.output, compute);
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  static constexpr Index kConv = 0;  // field of convolution inputs

  // g = logsigmoid(decay_1 decay_0 x + bias) / temperature
  void run_decays(View<const float> x, View<float> g, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> inner = scope.rows(x.rows, s_.decay_rank);
    decay_0_.run(x, inner, compute);
    decay_1_.run(inner, g, compute);
    add_bias(decay_bias_, g, compute);
    map_rows(kernels(compute).log_sigmoid, g, g, compute);
    scale_rows(g, static_cast<float>(1 / s_.decay_temperature), g, compute);
  }

  GatedLinearAttentionSettings s_;
  ConvolvedInputs inputs_;
  Linear decay_0_, decay_1_;
  std::vector<float> decay_bias_;
  Conditioned<DecayedSum> core_;
  GatedOutput output_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind gated_linear_attention_kind() {
  Kind kind;
  kind.key = "gated_linear_attention";
  kind.group = "recurrent";
  kind.summary = "linear attention whose state decays by a gate per key channel";
  kind.source = "Yang, Wang, Shen, Panda, Kim, arXiv 2312.06635, equations 3 and 4";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40, "conv": 4,
          "gate": "sigmoid", "gate_bias": true, "decay_temperature": 0.5})",
      R"({"num_heads": 1, "head_dim": 40, "value_head_dim": 24, "gate": "none", "decay_rank": 3})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40,
          "query": {"lambda": [0.0625]}})",
      R"({"num_heads": 1, "head_dim": 24, "query": {"lambda": [0.03125], "channel_decay": "left"}})",
      R"({"num_heads": 2, "head_dim": 12, "query": {"lambda_source": "tensor", "channel_decay": "both"}})"};
  kind.tensors = [](Config& config) {
    return gated_linear_attention_tensors(read_gated_linear_attention(config));
  };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<GatedLinearAttention>(read_gated_linear_attention(config), parameters);
  };
  kind.bound_factor = 16;  // an output norm of small rows, see the page
  kind.twin = make_gated_linear_attention_twin;
  return kind;
}

}  // namespace plait
