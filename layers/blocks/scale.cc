#include "layers/blocks/scale.h"

#include "layers/reference/scale.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

class Scale final : public Layer {
 public:
  explicit Scale(const ScaleSettings& settings)
      : width_(settings.width), factor_(static_cast<float>(settings.factor)) {}

  Signature signature() const override { return {{width_}, width_}; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    for_each_block(segments, [&](Index first, Index rows) {
      scale_rows(ports.input().slice_rows(first, rows), factor_, ports.output.slice_rows(first, rows),
                 context.compute);
    });
  }

 private:
  Index width_;
  float factor_;
};

}  // namespace

Kind scale_kind() {
  Kind kind;
  kind.key = "scale";
  kind.group = "other";
  kind.summary = "a constant factor";
  kind.source = "multipliers of maximal-update parametrisation: Yang et al., arXiv 2203.03466";
  kind.examples = {R"({"factor": 0.3})"};
  kind.graphs = Kind::Graphs::both;
  kind.tensors = [](Config& config) { return scale_tensors(read_scale(config)); };
  kind.make = [](Config& config, const Parameters&) -> std::unique_ptr<Layer> {
    return std::make_unique<Scale>(read_scale(config));
  };
  kind.twin = make_scale_twin;
  return kind;
}

}  // namespace plait
