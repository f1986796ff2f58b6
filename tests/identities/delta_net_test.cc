#include <gtest/gtest.h>

#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 100, kWidth = 40;
const Json kSettings = {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}};

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind layer(const Json& settings) {
  return OneKind("delta_net", settings, surroundings(),
                 OneKind::random_values("delta_net", settings, surroundings(), 1));
}

// Projections, products with the state, the sum over tokens and the output projection; the norms divide by
// what may be a small sum, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 80;

TEST(DeltaNet, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& more :
       {Json::object(), Json{{"conv", 0}, {"gate", "silu"}}, Json{{"negative_eigenvalues", true}},
        Json{{"beta", false}, {"qk_activation", "relu"}}, Json{{"qk_activation", "elu"}, {"qk_norm", "sum"}},
        Json{{"qk_activation", "identity"}}}) {
    Json settings = kSettings;
    settings.update(more);
    const OneKind kind = layer(settings);
    SCOPED_TRACE(more.dump());
    expect_near(kind.run(input), kind.twin(input), 16, kLength);
  }
}

// With the norm edited away the layer is, to the last bit, the one built without it.
TEST(DeltaNet, NormOffIsNoNorm) {
  Json with = kSettings, without = kSettings;
  with["qk_norm"] = "l2";
  without["qk_norm"] = "none";
  const KindInput input = random_input(20, kWidth, 3);
  EXPECT_TRUE(same_bits(run_edited(layer(with), input, range_edit(Site::qk_norm, Operator::off, 0, 20)),
                        layer(without).run(input)));
  EXPECT_FALSE(same_bits(layer(with).run(input), layer(without).run(input)));
}

TEST(DeltaNet, AnySplit) {
  const KindInput input = random_input(kRows, kWidth, 4);
  const OneKind kind = layer(kSettings);
  const std::vector<float> whole = kind.run(input);
  for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {7, 64, 1}, {33, 31}})
    EXPECT_TRUE(same_bits(kind.run(input, {.split = split}), whole)) << split[0];
}

TEST(DeltaNet, EditsAsDefined) {
  Json settings = kSettings;
  settings["gate"] = "silu";
  expect_edits_as_defined("delta_net", settings, surroundings(), 16, kLength);
}

TEST(DeltaNet, RefusesWhatItDoesNotKnow) {
  Json settings = kSettings;
  settings["qk_norm"] = "l1";
  EXPECT_THROW(layer(settings), Error);
  settings = kSettings;
  settings["num_value_heads"] = 4;
  EXPECT_THROW(layer(settings), Error);
}

}  // namespace
}  // namespace plait
