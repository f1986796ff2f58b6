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
  return OneKind::random_values("rebased", settings, surroundings(), 1);
}

// As of linear_attention.
constexpr double kLength = kWidth + 24 + kRows + 160;

// (q~.k~)^2 / d
WeightedPairs pairs_of(Index heads, Index kv_heads, Index d, Index dv) {
  WeightedPairs pairs{heads, kv_heads, d, dv};
  pairs.weight = [=](const double* q, const double* k, Index, Index) {
    return std::pow(dot(q, k, d), 2) / static_cast<double>(d);
  };
  pairs.divisor = [](double mass) { return mass + 1e-12; };
  return pairs;
}

// Both placements of the norm, written out, and none: the kind's d (d + 1) / 2 features, its twin's d^2 and
// the weights themselves.
TEST(Rebased, WeightsAreWrittenOut) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const char* norm : {"layer_wide", "per_head_shared", "none"}) {
    SCOPED_TRACE(norm);
    const Json settings = {{"num_heads", 4}, {"num_kv_heads", 2}, {"qk_norm", norm}};
    const OneKind::Values values = random_values(settings);
    WeightedPairs pairs = pairs_of(4, 2, 16, kWidth / 4);
    pairs.prepare = [=](bool query, reference::Rows& x, const reference::Weights& w) {
      if (std::string(norm) == "layer_wide") {
        const std::string name = query ? "q_norm" : "k_norm";
        reference::layer_normalise(x, x.cols, 1e-5, w[name], w[name + "_bias"]);
      }
      if (std::string(norm) == "per_head_shared")
        reference::layer_normalise(x, 16, 1e-5, w["qk_norm"], w["qk_norm_bias"]);
    };
    const std::vector<double> expected = pairs.run(values, input);
    const OneKind kind("rebased", settings, surroundings(), values);
    expect_pairs(kind, input, expected, kLength);
    EXPECT_EQ(kind.layer().fields()[0].shape[2], 136);
  }
}

// The original's modes without a norm: gains alone, or with biases; gains of 1 alone are no mode at all.
TEST(Rebased, ScaleAndShiftAreWrittenOut) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const bool shift : {false, true}) {
    const Json settings = {
        {"num_heads", 4}, {"num_kv_heads", 2}, {"qk_norm", shift ? "scale_and_shift" : "scale"}};
    OneKind::Values values = random_values(settings);
    EXPECT_EQ(values.contains("q_norm_bias"), shift);
    WeightedPairs pairs = pairs_of(4, 2, 16, kWidth / 4);
    pairs.prepare = [=](bool query, reference::Rows& x, const reference::Weights& w) {
      const std::string name = query ? "q_norm" : "k_norm";
      for (Index t = 0; t < x.rows; ++t)
        for (Index c = 0; c < x.cols; ++c) {
          x(t, c) *= w.at(name, c);
          if (shift) x(t, c) += w.at(name + "_bias", c);
        }
    };
    const std::vector<double> expected = pairs.run(values, input);
    const OneKind kind("rebased", settings, surroundings(), values);
    expect_pairs(kind, input, expected, kLength);
    for (auto& [name, numbers] : values)
      if (name == "q_norm" || name == "k_norm") std::fill(numbers.begin(), numbers.end(), 1.0f);
    if (shift) continue;
    OneKind::Values none = values;
    none.erase("q_norm");
    none.erase("k_norm");
    const Json without = {{"num_heads", 4}, {"num_kv_heads", 2}, {"qk_norm", "none"}};
    EXPECT_TRUE(same_bits(OneKind("rebased", settings, surroundings(), values).run(input),
                          OneKind("rebased", without, surroundings(), none).run(input)));
  }
}

// One head and unit norms: both placements are the same function.
TEST(Rebased, PlacementsAgreeForOneHead) {
  const Json wide = {{"num_heads", 1}}, shared = {{"num_heads", 1}, {"qk_norm", "per_head_shared"}};
  OneKind::Values values = random_values(shared), of_wide = random_values(wide);
  for (const char* side : {"q_norm", "k_norm"}) {
    of_wide[side] = values["qk_norm"];
    of_wide[cat(side, "_bias")] = values["qk_norm_bias"];
  }
  const KindInput input = random_input(kRows, kWidth, 3);
  EXPECT_TRUE(same_bits(OneKind("rebased", wide, surroundings(), of_wide).run(input),
                        OneKind("rebased", shared, surroundings(), values).run(input)));
}

// Without norm: polynomial attention of degree 2, normalised by the sum.
TEST(Rebased, WithoutNormIsPolynomialAttention) {
  const Json settings = {{"num_heads", 2}, {"head_dim", 9}, {"value_head_dim", 24}, {"qk_norm", "none"}};
  const Json polynomial = {{"num_heads", 2}, {"head_dim", 9},        {"value_head_dim", 24},
                           {"degree", 2},    {"denominator", "sum"}, {"logit_scale", std::pow(9, -0.5)},
                           {"eps", 1e-12}};
  const OneKind::Values values = random_values(settings);
  const KindInput input = random_input(kRows, kWidth, 4);
  expect_same(OneKind("rebased", settings, surroundings(), values).twin(input),
              OneKind("polynomial_attention", polynomial, surroundings(), values).twin(input));
}

TEST(Rebased, WeightsSumToOne) {
  const Index tokens = 40;
  const std::vector<double> weights =
      WeightProbe({{"qk_norm", "none"}}, tokens, 16, 12, 5).weights("rebased");
  for (Index i = 0; i < tokens; ++i) {
    double sum = 0;
    for (Index j = 0; j < tokens; ++j) {
      const double weight = weights[static_cast<std::size_t>(i * tokens + j)];
      sum += weight;
      if (j <= i) {
        EXPECT_GE(weight, 0);
      } else {
        EXPECT_EQ(weight, 0);
      }
    }
    EXPECT_NEAR(sum, 1, 1e-8);  // eps beside weights of about 1e-3
  }
}

// The first tokens' weights may all be small: u.w = 1e-3 between vectors of length 1.4. The root is good to
// 2e3 eps and its square to twice that; a sum of the products' squares would be off by 2e6 eps.
TEST(Rebased, SmallFirstWeightsKeepTheirDigits) {
  Surroundings around;
  around.width = 4;
  const Json settings = {{"num_heads", 1}, {"head_dim", 2}, {"value_head_dim", 1}, {"qk_norm", "none"}};
  // x = (key, value, 1), q = (1, 1)
  const OneKind kind("rebased", settings, around,
                     {{"q", {0, 0, 0, 1, 0, 0, 0, 1}},
                      {"k", {1, 0, 0, 0, 0, 1, 0, 0}},
                      {"v", {0, 0, 1, 0}},
                      {"o", {1, 1, 1, 1}}});
  KindInput input{3, {{1, -0.999f, 1, 1, 1, -1.0021f, -2, 1, 0.7f, -0.7013f, 3, 1}}};
  expect_near(kind.run(input), kind.twin(input), 4e3, 1);
}

// Queries orthogonal to every key: 0 / eps.
TEST(Rebased, NoWeightGivesZero) {
  Surroundings around;
  around.width = 2;
  const Json settings = {{"num_heads", 1}, {"head_dim", 2}, {"value_head_dim", 1}, {"qk_norm", "none"}};
  const OneKind kind("rebased", settings, around,
                     {{"q", {1, 0, 0, 0}}, {"k", {0, 0, 0, 1}}, {"v", {1, 1}}, {"o", {1, 1}}});
  for (const float y : kind.run(random_input(40, 2, 6))) ASSERT_EQ(y, 0);
}

TEST(Rebased, EditsAsDefined) {
  const Json settings = {{"num_heads", 2}, {"head_dim", 6}, {"value_head_dim", 40}, {"qk_norm", "none"}};
  expect_edits_as_defined("rebased", settings, surroundings(), 16, kLength);
}

TEST(Rebased, RefusesWhatItCannotMean) {
  for (const Json& settings : {Json{{"num_heads", 3}}, Json{{"num_heads", 4}, {"qk_norm", "rms"}},
                               Json{{"num_heads", 4}, {"qk_norm", "none"}, {"qk_norm_eps", 1e-6}},
                               Json{{"num_heads", 4}, {"qk_norm", "scale"}, {"qk_norm_eps", 1e-6}}}) {
    Config config("tested", settings, surroundings());
    EXPECT_THROW(Registry::builtin().find("rebased").tensors(config), Error) << settings.dump();
  }
}

}  // namespace
}  // namespace plait
