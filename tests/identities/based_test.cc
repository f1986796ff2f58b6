#include <gtest/gtest.h>

#include "tests/identities/attention_rows.h"
#include "tests/identities/mixer_definition.h"
#include "tests/identities/weighted_pairs.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 100, kWidth = 40;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values("based", settings, surroundings(), 1);
}

// As of linear_attention.
constexpr double kLength = kWidth + 24 + kRows + 160;

// The twin's 1 + d + d^2 features, the kind's (d + 1) (d + 2) / 2 and the weights written out: three ways to
// the same numbers.
TEST(Based, WeightsAreWrittenOut) {
  const Json settings = {{"num_heads", 4}, {"num_kv_heads", 2}};
  const OneKind::Values values = random_values(settings);
  const KindInput input = random_input(kRows, kWidth, 2);
  WeightedPairs pairs{4, 2, 16, kWidth / 4};
  pairs.weight = [](const double* q, const double* k, Index, Index) {
    const double s = dot(q, k, 16) / 4;
    return 1 + s + s * s / 2;
  };
  pairs.divisor = [](double mass) { return mass + 1e-12; };
  const std::vector<double> expected = pairs.run(values, input);
  const OneKind kind("based", settings, surroundings(), values);
  expect_pairs(kind, input, expected, kLength);
  EXPECT_EQ(kind.layer().fields()[0].shape[2], 153);
}

// The compact layout of linear_attention's twin and the full one of this twin.
TEST(Based, IsLinearAttentionWithTaylorFeatures) {
  const Json settings = {{"num_heads", 2}, {"head_dim", 9}, {"value_head_dim", 24}, {"eps", 1e-10}};
  Json taylor = settings;
  taylor["feature_map"] = "taylor2";
  taylor["scale"] = 1;
  const OneKind::Values values = random_values(settings);
  const KindInput input = random_input(kRows, kWidth, 3);
  const OneKind based("based", settings, surroundings(), values);
  const OneKind linear("linear_attention", taylor, surroundings(), values);
  expect_same(based.twin(input), linear.twin(input));
  EXPECT_TRUE(same_bits(based.run(input), linear.run(input)));
}

// Rows of weights sum to 1 and all weights are positive.
TEST(Based, WeightsSumToOne) {
  const Index tokens = 40;
  const std::vector<double> weights = WeightProbe(Json::object(), tokens, 16, 12, 4).weights("based");
  for (Index i = 0; i < tokens; ++i) {
    double sum = 0;
    for (Index j = 0; j < tokens; ++j) {
      const double weight = weights[static_cast<std::size_t>(i * tokens + j)];
      sum += weight;
      if (j <= i) {
        EXPECT_GT(weight, 0);
      } else {
        EXPECT_EQ(weight, 0);
      }
    }
    EXPECT_NEAR(sum, 1, 1e-11);
  }
}

// The smallest weight, 1/2 at s = -1, beside the 1 of s = 0.
TEST(Based, SmallestWeightIsAHalf) {
  Surroundings around;
  around.width = 1;
  const Json settings = {{"num_heads", 1}, {"head_dim", 1}, {"value_head_dim", 1}};
  const OneKind kind("based", settings, around, {{"q", {1}}, {"k", {-1}}, {"v", {1}}, {"o", {1}}});
  // Keys 0 and -1, values 0 and 1, query 1: weights 1 and 1/2.
  EXPECT_NEAR(kind.twin({2, {{0, 1}}})[1], 0.5 / 1.5, 1e-12);
}

TEST(Based, EditsAsDefined) {
  const Json settings = {{"num_heads", 2}, {"head_dim", 5}, {"value_head_dim", 40}};
  expect_edits_as_defined("based", settings, surroundings(), 16, kLength);
}

TEST(Based, RefusesWhatItCannotMean) {
  for (const Json& settings : {Json{{"num_heads", 3}}, Json{{"num_heads", 4}, {"num_kv_heads", 3}},
                               Json{{"num_heads", 4}, {"feature_map", "elu"}}}) {
    Config config("tested", settings, surroundings());
    EXPECT_THROW(Registry::builtin().find("based").tensors(config), Error) << settings.dump();
  }
  Config config("tested", {{"num_heads", 3}, {"value_head_dim", 7}}, surroundings());
  EXPECT_NO_THROW(Registry::builtin().find("based").tensors(config));
}

}  // namespace
}  // namespace plait
