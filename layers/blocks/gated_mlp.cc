#include "layers/blocks/gated_mlp.h"

#include "layers/reference/gated_mlp.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

Kernels::Map activation_of(GatedMlpSettings::Activation activation, const Kernels& k) {
  switch (activation) {
    case GatedMlpSettings::Activation::silu:
      return k.silu;
    case GatedMlpSettings::Activation::gelu_tanh:
      return k.gelu_tanh;
    case GatedMlpSettings::Activation::gelu:
      return k.gelu;
    case GatedMlpSettings::Activation::relu:
      return k.relu;
  }
  return nullptr;
}

class GatedMlp final : public Layer {
 public:
  GatedMlp(const GatedMlpSettings& settings, const Parameters& parameters)
      : activation_(settings.activation),
        gate_multiplier_(static_cast<float>(settings.gate_multiplier)),
        down_multiplier_(static_cast<float>(settings.down_multiplier)),
        gate_(parameters.tensor("gate")),
        up_(parameters.tensor("up")),
        down_(parameters.tensor("down")) {
    if (!settings.bias) return;
    gate_bias_ = to_float(parameters.tensor("gate_bias"));
    up_bias_ = to_float(parameters.tensor("up_bias"));
    down_bias_ = to_float(parameters.tensor("down_bias"));
  }

  Signature signature() const override { return {{gate_.in()}, down_.out()}; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    for_each_block(segments, [&](Index first, Index rows) {
      run_rows(ports.input().slice_rows(first, rows), ports.output.slice_rows(first, rows), context.compute);
    });
  }

 private:
  // x [rows, width], y [rows, width]
  void run_rows(View<const float> x, View<float> y, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> gate = scope.rows(x.rows, gate_.out());
    const View<float> up = scope.rows(x.rows, up_.out());
    gate_.run(x, gate, compute);
    up_.run(x, up, compute);
    for_each_row(0, x.rows, compute.threads,
                 [&](Index r) { combine(gate.row(r), up.row(r), kernels(compute)); });
    down_.run(gate, y, compute);
    if (!down_bias_.empty()) add_bias(down_bias_, y, compute);
    if (down_multiplier_ != 1) scale_rows(y, down_multiplier_, y, compute);
  }

  // gate := act(multiplier * (gate + bias)) * (up + bias), one row while it is in the cache. gate, up
  // [hidden]
  void combine(float* gate, float* up, const Kernels& k) const {
    const Index hidden = gate_.out();
    if (!gate_bias_.empty()) k.add(gate, gate_bias_.data(), gate, hidden);
    if (!up_bias_.empty()) k.add(up, up_bias_.data(), up, hidden);
    if (gate_multiplier_ != 1) k.scale(gate, gate_multiplier_, gate, hidden);
    activation_of(activation_, k)(gate, gate, hidden);
    k.multiply(gate, up, gate, hidden);
  }

  GatedMlpSettings::Activation activation_;
  float gate_multiplier_, down_multiplier_;
  Linear gate_, up_, down_;
  std::vector<float> gate_bias_, up_bias_, down_bias_;
};

}  // namespace

Kind gated_mlp_kind() {
  Kind kind;
  kind.key = "gated_mlp";
  kind.group = "mlp";
  kind.summary = "gated feed-forward: down(act(gate x) * up x)";
  kind.source = "Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202, equation 6";
  kind.examples = {
      R"({"hidden": 96})",
      R"({"hidden": 80, "activation": "gelu_tanh", "gate_multiplier": 0.75, "down_multiplier": 0.3})",
      R"({"hidden": 72, "activation": "gelu", "bias": true, "gate_multiplier": 0.75})",
      R"({"hidden": 33, "activation": "relu"})",
  };
  kind.graphs = Kind::Graphs::both;
  kind.tensors = [](Config& config) { return gated_mlp_tensors(read_gated_mlp(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<GatedMlp>(read_gated_mlp(config), parameters);
  };
  kind.twin = make_gated_mlp_twin;
  return kind;
}

}  // namespace plait
