#include "layers/blocks/add.h"

#include "layers/reference/add.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

class Add final : public Layer {
 public:
  explicit Add(const AddSettings& settings)
      : width_(settings.width), scales_(settings.scales.begin(), settings.scales.end()) {}

  Signature signature() const override { return {std::vector<Index>(scales_.size(), width_), width_}; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Kernels& k = kernels(context.compute);
    for_each_block(segments, [&](Index first, Index rows) {
      for_each_row(first, rows, context.compute.threads, [&](Index r) { add_row(ports, r, k); });
    });
  }

 private:
  void add_row(const Ports& ports, Index r, const Kernels& k) const {
    float* y = ports.output.row(r);
    if (scales_[0] == 1)
      std::copy_n(ports.input().row(r), width_, y);
    else
      k.scale(ports.input().row(r), scales_[0], y, width_);
    for (std::size_t i = 1; i < scales_.size(); ++i) {
      const float* x = ports.inputs[i].row(r);
      if (scales_[i] == 1)
        k.add(y, x, y, width_);
      else
        k.add_scaled(scales_[i], x, y, width_);
    }
  }

  Index width_;
  std::vector<float> scales_;
};

}  // namespace

Kind add_kind() {
  Kind kind;
  kind.key = "add";
  kind.group = "other";
  kind.summary = "sum of the inputs in port order, each with its scale: residual streams, parallel branches";
  kind.source = "He et al., arXiv 1512.03385, equation 1";
  kind.examples = {"{}", R"({"scales": [0.5, 1.25]})", R"({"scales": [1, 0.3]})"};
  kind.graphs = Kind::Graphs::both;
  kind.tensors = [](Config& config) { return add_tensors(read_add(config)); };
  kind.make = [](Config& config, const Parameters&) -> std::unique_ptr<Layer> {
    return std::make_unique<Add>(read_add(config));
  };
  kind.twin = make_add_twin;
  return kind;
}

}  // namespace plait
