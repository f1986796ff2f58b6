#include "layers/blocks/layer_norm.h"

#include "layers/blocks/norm_scale.h"
#include "layers/reference/layer_norm.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

class LayerNorm final : public Layer, public NormScale {
 public:
  LayerNorm(const LayerNormSettings& settings, const Parameters& parameters)
      : eps_(static_cast<float>(settings.eps)), gain_(to_float(parameters.tensor("weight"))) {
    if (settings.bias) bias_ = to_float(parameters.tensor("bias"));
  }

  Signature signature() const override { return {{width()}, width()}; }
  std::span<const SiteSpec> sites() const override { return norm_sites(); }
  float scale(const float* row, const Kernels& k) const override {
    return variance_scale(k, row, width(), eps_);
  }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Kernels& k = kernels(context.compute);
    for_each_frozen(*this, ports, segments, k, [&](Index row, float factor) {
      const float* x = ports.input().row(row);
      float* y = ports.output.row(row);
      k.add_scalar(x, -(k.sum(x, width()) / static_cast<float>(width())), y, width());
      k.scale(y, factor, y, width());
      k.multiply(y, gain_.data(), y, width());
      if (!bias_.empty()) k.add(y, bias_.data(), y, width());
    });
    for_each_block(not_frozen(segments), [&](Index first, Index rows) {
      layer_norm(ports.input().slice_rows(first, rows), width(), eps_, gain_, bias_,
                 ports.output.slice_rows(first, rows), context.compute);
    });
  }

 private:
  Index width() const { return static_cast<Index>(gain_.size()); }
  float eps_;
  std::vector<float> gain_, bias_;
};

}  // namespace

Kind layer_norm_kind() {
  Kind kind;
  kind.key = "layer_norm";
  kind.group = "norm";
  kind.summary = "mean and variance norm over the row, with gain and optional bias";
  kind.source = "Ba, Kiros and Hinton, arXiv 1607.06450, equation 4";
  kind.examples = {"{}", R"({"eps": 1e-6, "bias": false})"};
  kind.graphs = Kind::Graphs::both;
  kind.tensors = [](Config& config) { return layer_norm_tensors(read_layer_norm(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<LayerNorm>(read_layer_norm(config), parameters);
  };
  kind.twin = make_layer_norm_twin;
  return kind;
}

}  // namespace plait
