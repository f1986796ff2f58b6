#include "layers/recurrent/delta_net.h"

#include "layers/recurrent/curvature_conditioned_query.h"
#include "layers/recurrent/delta.h"
#include "layers/recurrent/inputs.h"
#include "layers/recurrent/output.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/delta_net.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

using Activation = DeltaNetSettings::Activation;
using Norm = DeltaNetSettings::Norm;

constexpr float kNormEps = 1e-6f;  // of the l2 norm of queries and keys

Conditioned<Delta> make_core(const DeltaNetSettings& s, const Parameters& parameters, Index first_field) {
  const Delta::Sizes sizes{s.num_heads,      s.num_heads, s.head_dim,
                           s.value_head_dim, s.chunk,     Delta::Decay::none};
  return {Delta(sizes, first_field),
          first_field,
          {s.num_heads, s.num_heads, s.num_heads, s.head_dim, s.chunk, Curvature::Decay::none},
          s.query,
          query_lambdas(s.query, parameters)};
}

GatedOutput::Settings output_of(const DeltaNetSettings& s) {
  return {s.num_heads, s.value_head_dim, s.gate, true, static_cast<float>(s.norm_eps)};
}

Kernels::Map function_of(Activation activation, const Kernels& k) {
  switch (activation) {
    case Activation::silu:
      return k.silu;
    case Activation::relu:
      return k.relu;
    case Activation::elu:
      return k.elu_plus_one;
    case Activation::identity:
      break;
  }
  return nullptr;
}

class DeltaNet final : public Layer {
 public:
  DeltaNet(const DeltaNetSettings& settings, const Parameters& parameters)
      : s_(settings),
        inputs_(parameters, {"q", "k", "v"}, settings.conv, Convolution::Activation::none),
        core_(make_core(settings, parameters, inputs_.convolves() ? 1 : 0)),
        output_(parameters, output_of(settings)) {
    if (s_.beta) beta_ = Linear(parameters.tensor("beta"));
    if (inputs_.convolves()) fields_.push_back(inputs_.field());
    for (Field& field : core_.fields()) fields_.push_back(std::move(field));
    const Index heads = s_.num_heads, width = s_.value_head_dim;
    sites_ = {write_site(heads), erase_site(heads), state_site(heads), head_site(heads, width)};
    if (s_.qk_norm != Norm::none) sites_.push_back(qk_norm_site(heads));
    if (inputs_.convolves()) sites_.push_back(conv_site());
    if (output_.gated()) sites_.push_back(gate_site(heads, width));
  }

  Signature signature() const override { return {{inputs_.in()}, output_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    const Compute& compute = context.compute;
    const Index keys = s_.num_heads * s_.head_dim, values = s_.num_heads * s_.value_head_dim;
    Arena::Scope scope(scratch());
    const View<float> qkv = scope.rows(x.rows, inputs_.width());
    inputs_.run(x, qkv, segments, kConv, compute);
    const View<float> q = qkv.slice_cols(0, keys), k = qkv.slice_cols(keys, keys),
                      v = qkv.slice_cols(2 * keys, values);
    prepare(q, k, v, segments, compute);

    const View<float> erase = scope.rows(x.rows, s_.num_heads), write = scope.rows(x.rows, s_.num_heads),
                      match = scope.rows(x.rows, s_.num_heads);
    for_each_block(segments, [&](Index first, Index rows) {
      run_strengths(x.slice_rows(first, rows), write.slice_rows(first, rows), compute);
      copy_rows(write.slice_rows(first, rows), erase.slice_rows(first, rows));
    });
    edit_strengths(segments, {s_.num_heads, {}, erase, write, match});

    const View<float> o = scope.rows(x.rows, values);
    core_.run({q, k, v, {}, erase, write, o, match}, segments, compute);
    output_.run(x, o, segments, ports.output, compute);
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  static constexpr Index kConv = 0;  // field of convolution inputs

  // Activations, norms and scale of what the projections gave.
  void prepare(View<float> q, View<float> k, View<float> v, std::span<const Segment> segments,
               const Compute& compute) const {
    const Kernels& table = kernels(compute);
    for_each_block(activated(segments), [&](Index first, Index rows) {
      const View<float> values = v.slice_rows(first, rows);
      map_rows(table.silu, values, values, compute);
      for (const View<float>& both : {q, k}) {
        const View<float> block = both.slice_rows(first, rows);
        if (const Kernels::Map f = function_of(s_.qk_activation, table)) map_rows(f, block, block, compute);
      }
    });
    const float scale = static_cast<float>(s_.scale);
    if (s_.qk_norm == Norm::l2) {
      normalise_heads(segments, s_.num_heads, q, kNormEps, scale, compute);
      normalise_heads(segments, s_.num_heads, k, kNormEps, 1, compute);
      return;
    }
    if (s_.qk_norm == Norm::sum)
      for (const View<float>& both : {q, k}) divide_by_sums(segments, both, table);
    for_each_block(segments, [&](Index first, Index rows) {
      scale_rows(q.slice_rows(first, rows), scale, q.slice_rows(first, rows), compute);
    });
  }

  // x / sum x per head.
  void divide_by_sums(std::span<const Segment> segments, View<float> x, const Kernels& k) const {
    for (const Segment& segment : segments)
      for (Index h = 0; h < s_.num_heads; ++h) {
        if (segment.edit(Site::qk_norm, Operator::off, h)) continue;
        const View<float> head = rows_of(segment, x).slice_cols(h * s_.head_dim, s_.head_dim);
        for (Index r = 0; r < head.rows; ++r) {
          const float sum = k.sum(head.row(r), head.cols);
          for (Index c = 0; c < head.cols; ++c) head(r, c) /= sum;
        }
      }
  }

  // beta = sigmoid(b x) or 1, doubled for negative eigenvalues.
  void run_strengths(View<const float> x, View<float> beta, const Compute& compute) const {
    if (s_.beta) {
      beta_.run(x, beta, compute);
      map_rows(kernels(compute).sigmoid, beta, beta, compute);
    } else {
      fill_rows(1, beta);
    }
    if (s_.negative_eigenvalues) scale_rows(beta, 2, beta, compute);
  }

  DeltaNetSettings s_;
  ConvolvedInputs inputs_;
  Linear beta_;
  Conditioned<Delta> core_;
  GatedOutput output_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind delta_net_kind() {
  Kind kind;
  kind.key = "delta_net";
  kind.group = "recurrent";
  kind.summary = "delta rule over a matrix state";
  kind.source =
      "Yang, Wang, Zhang, Shen, Kim, arXiv 2406.06484, section 2.2; Schlag et al., arXiv 2102.11174";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 2, "head_dim": 24, "value_head_dim": 40, "qk_activation": "elu", "qk_norm": "sum",
          "gate": "silu", "conv": 0})",
      R"({"num_heads": 2, "head_dim": 16, "gate": "sigmoid", "gate_bias": true})",
      R"({"num_heads": 1, "head_dim": 40, "value_head_dim": 24, "negative_eigenvalues": true,
          "qk_activation": "identity", "conv": 3})",
      R"({"num_heads": 2, "head_dim": 16, "beta": false, "qk_activation": "relu"})",
      R"({"num_heads": 2, "head_dim": 24, "value_head_dim": 40, "query": {"lambda_source": "tensor"}})"};
  kind.tensors = [](Config& config) { return delta_net_tensors(read_delta_net(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<DeltaNet>(read_delta_net(config), parameters);
  };
  kind.bound_factor = 16;  // an output norm of small rows, see the page
  kind.twin = make_delta_net_twin;
  return kind;
}

}  // namespace plait
