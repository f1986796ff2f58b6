#include "tests/changed_kinds.h"

#include <cmath>

namespace plait::testing {
namespace {

class Followed final : public Layer {
 public:
  Followed(std::unique_ptr<Layer> layer, Afterwards afterwards)
      : layer_(std::move(layer)), afterwards_(std::move(afterwards)) {}
  Signature signature() const override { return layer_->signature(); }
  std::span<const Field> fields() const override { return layer_->fields(); }
  std::span<const SiteSpec> sites() const override { return layer_->sites(); }
  void fold(State& state, Index boundary, Context& context) const override {
    layer_->fold(state, boundary, context);
  }
  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    layer_->run(ports, segments, context);
    afterwards_(ports, segments);
  }

 private:
  std::unique_ptr<Layer> layer_;
  Afterwards afterwards_;
};

void move_last_bits(const Ports& ports, const Segment& segment) {
  for (Index r = segment.first_row; r < segment.first_row + segment.rows; ++r)
    ports.output(r, 0) = std::nextafter(ports.output(r, 0), 1e30f);
}

}  // namespace

Registry with(const std::string& key, const std::function<void(Kind&)>& change) {
  Registry registry;
  for (const auto& [name, kind] : Registry::builtin().kinds()) {
    Kind copy = kind;
    if (name == key) change(copy);
    registry.add(std::move(copy));
  }
  return registry;
}

Registry with_afterwards(const std::string& key, const Afterwards& afterwards) {
  return with(key, [&](Kind& kind) {
    const auto honest = kind.make;
    kind.make = [honest, afterwards](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
      return std::make_unique<Followed>(honest(config, parameters), afterwards);
    };
  });
}

void mind_row_counts(const Ports& ports, std::span<const Segment> segments) {
  for (const Segment& segment : segments)
    if (segment.rows > 1) move_last_bits(ports, segment);
}

void mind_company(const Ports& ports, std::span<const Segment> segments) {
  for (const Segment& segment : segments)
    if (segments.size() > 1) move_last_bits(ports, segment);
}

}  // namespace plait::testing
