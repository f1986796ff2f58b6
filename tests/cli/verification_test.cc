// A verification that cannot fail would be worth nothing: engines with a known mistake are found out.
#include "tools/verification.h"

#include <gtest/gtest.h>

#include <cmath>

#include "layers/reference/twin.h"
#include "tests/changed_kinds.h"
#include "tests/testing.h"

namespace plait {
namespace {

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

TEST(Verification, PassesOnAnHonestEngine) {
  const Verification v = verify(model_of(Registry::builtin()), tokens(), {});
  for (const NodeCheck& n : v.nodes)
    EXPECT_TRUE(n.passed()) << n.name << " " << n.rel_error << " > " << n.bound;
  for (const EqualityCheck& c : v.checks) EXPECT_TRUE(c.passed) << c.name << ": " << c.detail;
  EXPECT_TRUE(v.passed());
  EXPECT_LT(v.logit_error_exact, 1e-4);
}

TEST(Verification, FindsAWrongNodeAndOnlyThat) {
  const Registry registry = testing::with("gated_delta_net", [](Kind& kind) {
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
  const Registry registry = testing::with_afterwards("gated_delta_net", testing::mind_row_counts);
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
