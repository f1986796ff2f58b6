#include "layers/recurrent/mesa_net.h"

#include "layers/recurrent/inputs.h"
#include "layers/recurrent/output.h"
#include "layers/recurrent/ridge_solver.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/mesa_net.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

constexpr float kNormEps = 1e-6f;  // of the l2 norm of queries and keys

RidgeSolver::Settings core_of(const MesaNetSettings& s, const Parameters& parameters) {
  RidgeSolver::Settings core;
  core.heads = s.num_heads;
  core.key = s.head_dim;
  core.value = s.value_head_dim;
  core.chunk = s.chunk;
  core.method = s.solver == MesaNetSettings::Solver::cg ? RidgeSolver::Method::conjugate_gradient
                                                        : RidgeSolver::Method::cholesky;
  core.steps = s.cg_steps;
  core.eps = static_cast<float>(s.cg_eps);
  core.tolerance = static_cast<float>(s.cg_tolerance);
  core.first =
      s.cg_start == MesaNetSettings::Start::zero ? RidgeSolver::First::zero : RidgeSolver::First::diagonal;
  core.ridge = to_float(parameters.tensor("lambda"));
  const auto size = static_cast<Index>(core.ridge.size());
  kernels().softplus(core.ridge.data(), core.ridge.data(), size);
  kernels().add_scalar(core.ridge.data(), static_cast<float>(s.lambda_min), core.ridge.data(), size);
  return core;
}

GatedOutput::Settings output_of(const MesaNetSettings& s) {
  return {s.num_heads, s.value_head_dim, s.gate, true, static_cast<float>(s.norm_eps)};
}

class MesaNet final : public Layer {
 public:
  MesaNet(const MesaNetSettings& settings, const Parameters& parameters)
      : s_(settings),
        inputs_(parameters, {"q", "k"}, settings.conv, Convolution::Activation::silu),
        v_(parameters.tensor("v")),
        a_(parameters.tensor("a")),
        beta_(parameters.tensor("beta")),
        a_bias_(to_float(parameters.tensor("a_bias"))),
        beta_bias_(to_float(parameters.tensor("beta_bias"))),
        core_(core_of(settings, parameters), inputs_.convolves() ? 1 : 0),
        output_(parameters, output_of(settings)) {
    if (inputs_.convolves()) fields_.push_back(inputs_.field());
    for (Field& field : core_.fields()) fields_.push_back(std::move(field));
    const Index heads = s_.num_heads, width = s_.value_head_dim;
    sites_ = {decay_site(heads), write_site(heads), state_site(heads), head_site(heads, width),
              qk_norm_site(heads)};
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
    const View<float> qk = scope.rows(x.rows, inputs_.width()), v = scope.rows(x.rows, values),
                      g = scope.rows(x.rows, s_.num_heads), write = scope.rows(x.rows, s_.num_heads);
    inputs_.run(x, qk, segments, kConv, compute);
    for_each_block(segments, [&](Index first, Index rows) {
      const auto block = [&](auto all) { return all.slice_rows(first, rows); };
      if (!inputs_.convolves())  // the convolution brings the activation along
        map_rows(kernels(compute).silu, block(qk), block(qk), compute);
      v_.run(block(x), block(v), compute);
      run_gates(block(x), block(g), block(write), compute);
    });
    const View<float> q = qk.slice_cols(0, keys), k = qk.slice_cols(keys, keys);
    normalise_heads(segments, s_.num_heads, q, kNormEps, 1, compute);
    normalise_heads(segments, s_.num_heads, k, kNormEps, 1, compute);
    edit_strengths(segments, {s_.num_heads, g, {}, write, {}});

    const View<float> o = scope.rows(x.rows, values);
    core_.run({q, k, v, g, write, o}, segments, compute);
    output_.run(x, o, segments, ports.output, compute);
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  static constexpr Index kConv = 0;  // field of convolution inputs

  // g = logsigmoid(a x + a_bias), beta = sigmoid(b x + beta_bias)
  void run_gates(View<const float> x, View<float> g, View<float> beta, const Compute& compute) const {
    const Kernels& k = kernels(compute);
    a_.run(x, g, compute);
    add_bias(a_bias_, g, compute);
    map_rows(k.log_sigmoid, g, g, compute);
    beta_.run(x, beta, compute);
    add_bias(beta_bias_, beta, compute);
    map_rows(k.sigmoid, beta, beta, compute);
  }

  MesaNetSettings s_;
  ConvolvedInputs inputs_;
  Linear v_, a_, beta_;
  std::vector<float> a_bias_, beta_bias_;
  RidgeSolver core_;
  GatedOutput output_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind mesa_net_kind() {
  Kind kind;
  kind.key = "mesa_net";
  kind.group = "recurrent";
  kind.summary = "reads the prediction of a ridge regression of the values on the keys";
  kind.source = "von Oswald et al., arXiv 2506.05233; layout of flash-linear-attention";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 2, "head_dim": 24, "value_head_dim": 40, "solver": "cholesky", "gate": "silu"})",
      R"({"num_heads": 1, "head_dim": 16, "cg_tolerance": 1e-6})",
      R"({"num_heads": 1, "head_dim": 40, "value_head_dim": 24, "conv": 0, "cg_start": "diagonal",
          "cg_steps": 12, "cg_eps": 0, "gate": "sigmoid", "gate_bias": true})"};
  kind.tensors = [](Config& config) { return mesa_net_tensors(read_mesa_net(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<MesaNet>(read_mesa_net(config), parameters);
  };
  kind.bound_factor = 16;  // an output norm of small rows, see the page
  kind.twin = make_mesa_net_twin;
  return kind;
}

}  // namespace plait
