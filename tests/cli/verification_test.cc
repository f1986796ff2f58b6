// A verification that cannot fail would be worth nothing: engines with a known mistake are found out.
#include "tools/verification.h"

#include <gtest/gtest.h>

#include <cmath>

#include "layers/reference/twin.h"
#include "tests/testing.h"

namespace plait {
namespace {

// The kinds of plait, one of them with a changed twin or layer.
Registry with(const std::string& key, const std::function<void(Kind&)>& change) {
  Registry registry;
  for (const auto& [name, kind] : Registry::builtin().kinds()) {
    Kind copy = kind;
    if (name == key) change(copy);
    registry.add(std::move(copy));
  }
  return registry;
}

std::shared_ptr<const Model> model_of(const Registry& registry) {
  const Json card =
      testing::card_of_kind("gated_delta_net", {{"num_heads", 2}, {"head_dim", 16}, {"value_head_dim", 16}});
  return std::make_shared<const Model>(testing::random_data(card, 3), registry);
}

std::vector<Token> tokens() { return testing::Numbers(5).tokens(70, 97); }

// The true twin, but for one value that is off by one part in a hundred.
class Disturbed final : public Twin {
 public:
  explicit Disturbed(std::shared_ptr<Twin> twin) : twin_(std::move(twin)) {}
  void run(std::span<const View<const double>> inputs, std::span<const Token> ids,
           View<double> output) const override {
    twin_->run(inputs, ids, output);
    output(output.rows - 1, 0) *= 1 + 1e-2;
  }

 private:
  std::shared_ptr<Twin> twin_;
};

// A layer whose output depends on how many rows it is given, in the last bit.
class Careless final : public Layer {
 public:
  explicit Careless(std::unique_ptr<Layer> layer) : layer_(std::move(layer)) {}
  Signature signature() const override { return layer_->signature(); }
  std::span<const Field> fields() const override { return layer_->fields(); }
  std::span<const SiteSpec> sites() const override { return layer_->sites(); }
  void fold(State& state, Index boundary, Context& context) const override {
    layer_->fold(state, boundary, context);
  }
  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    layer_->run(ports, segments, context);
    for (const Segment& s : segments)
      if (s.rows > 1)
        for (Index r = s.first_row; r < s.first_row + s.rows; ++r)
          ports.output(r, 0) = std::nextafter(ports.output(r, 0), 1e30f);
  }

 private:
  std::unique_ptr<Layer> layer_;
};

TEST(Verification, PassesOnAnHonestEngine) {
  const Verification v = verify(model_of(Registry::builtin()), tokens(), {});
  for (const NodeCheck& n : v.nodes)
    EXPECT_TRUE(n.passed()) << n.name << " " << n.rel_error << " > " << n.bound;
  for (const EqualityCheck& c : v.checks) EXPECT_TRUE(c.passed) << c.name << ": " << c.detail;
  EXPECT_TRUE(v.passed());
  EXPECT_LT(v.logit_error_exact, 1e-4);
}

TEST(Verification, FindsAWrongNodeAndOnlyThat) {
  const Registry registry = with("gated_delta_net", [](Kind& kind) {
    const auto honest = kind.twin;
    kind.twin = [honest](Config& config, const Parameters& parameters) {
      return std::make_shared<Disturbed>(honest(config, parameters));
    };
  });
  Verification v;
  const auto ids = tokens();
  compare_with_twins(*model_of(registry), ids, {}, v);
  EXPECT_FALSE(v.passed());
  for (const NodeCheck& n : v.nodes) EXPECT_EQ(n.passed(), n.kind != "gated_delta_net") << n.name;
}

TEST(Verification, FindsALayerThatLooksAtItsNumberOfRows) {
  const Registry registry = with("gated_delta_net", [](Kind& kind) {
    const auto honest = kind.make;
    kind.make = [honest](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
      return std::make_unique<Careless>(honest(config, parameters));
    };
  });
  Verification v;
  const auto ids = tokens();
  check_equalities(model_of(registry), ids, {}, v);
  EXPECT_FALSE(v.passed());
  for (const EqualityCheck& c : v.checks) {
    if (c.name == "split 1") {
      EXPECT_FALSE(c.passed);
      EXPECT_NE(c.detail.find("differ"), std::string::npos) << c.detail;
    }
    if (c.name == "threads 2") {
      EXPECT_TRUE(c.passed) << "the same split gives the same bits";
    }
  }
}

TEST(Verification, NotANumberFails) {
  NodeCheck check{"n", "k", Numerics::exact, std::nan(""), 1};
  EXPECT_FALSE(check.passed());
}

}  // namespace
}  // namespace plait
