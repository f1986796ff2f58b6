#include <gtest/gtest.h>

#include <numbers>

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
  return OneKind::random_values("cosformer", settings, surroundings(), 1);
}

// As of linear_attention.
constexpr double kLength = kWidth + 24 + kRows + 160;

const Json kRelu = {
    {"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 12}, {"value_head_dim", 40}, {"M", 120}};
const Json kElu = {{"num_heads", 2}, {"head_dim", 9}, {"value_head_dim", 24},
                   {"M", kRows},     {"bias", false}, {"feature", "elu_plus_one"}};

WeightedPairs pairs_of(const Json& s) {
  const Index d = s["head_dim"];
  const double reach = s["M"];
  const bool elu = s.value("feature", "relu") == "elu_plus_one";
  WeightedPairs pairs{s["num_heads"], s.value("num_kv_heads", s["num_heads"].get<Index>()), d,
                      s["value_head_dim"]};
  pairs.weight = [=](const double* q, const double* k, Index i, Index j) {
    const auto f = [=](double x) { return elu ? (x > 0 ? x + 1 : std::exp(x)) : std::max(x, 0.0); };
    double sum = 0;
    for (Index c = 0; c < d; ++c) sum += f(q[c]) * f(k[c]);
    return sum * std::cos(std::numbers::pi * static_cast<double>(i - j) / (2 * reach));
  };
  pairs.divisor = [](double mass) { return std::max(mass, 1e-6); };
  return pairs;
}

// The cosine of the difference, and the recurrence of its features = the quadratic form.
TEST(Cosformer, WeightsAreWrittenOut) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& settings : {kRelu, kElu}) {
    SCOPED_TRACE(settings.dump());
    const OneKind::Values values = random_values(settings);
    const OneKind kind("cosformer", settings, surroundings(), values);
    const std::vector<double> expected = pairs_of(settings).run(values, input);
    expect_pairs(kind, input, expected, kLength);
  }
}

// M -> infinity is linear attention with relu; the cosine leaves 1 like (i - j)^2 / M^2.
TEST(Cosformer, FarReachIsLinearAttention) {
  const KindInput input = random_input(kRows, kWidth, 3);
  Json settings = {{"num_heads", 2}, {"head_dim", 12}, {"value_head_dim", 20},
                   {"bias", false},  {"eps", 1e-10},   {"M", 1000}};
  const OneKind::Values values = random_values(settings);
  const Json plain = {{"num_heads", 2}, {"head_dim", 12},        {"value_head_dim", 20},
                      {"scale", 1},     {"feature_map", "relu"}, {"eps", 1e-10}};
  const OneKind linear("linear_attention", plain, surroundings(), values);
  const std::vector<double> expected = linear.twin(input);
  const auto error = [&](Index reach) {
    settings["M"] = reach;
    return relative_error(OneKind("cosformer", settings, surroundings(), values).twin(input), expected);
  };
  const double near = error(1000), far = error(10000);
  EXPECT_LT(near, std::pow(std::numbers::pi / 2 * kRows / 1000, 2));
  EXPECT_NEAR(near / far, 100, 5);
}

// Rows of weights sum to 1; none is negative up to a distance of M, all are beyond it.
TEST(Cosformer, WeightsTurnNegativeBeyondM) {
  const Index tokens = 15, reach = 10;
  const WeightProbe probe({{"M", reach}, {"bias", false}, {"feature", "elu_plus_one"}}, tokens, 12, 16, 4);
  const std::vector<double> weights = probe.weights("cosformer");
  for (Index i = 0; i < tokens; ++i) {
    double sum = 0;
    for (Index j = 0; j < tokens; ++j) {
      const double weight = weights[static_cast<std::size_t>(i * tokens + j)];
      sum += weight;
      const double sign = j > i || i - j == reach ? 0 : i - j < reach ? 1 : -1;
      if (sign == 0) {
        EXPECT_NEAR(weight, 0, 1e-15);
      } else {
        EXPECT_GT(weight * sign, 0);
      }
    }
    EXPECT_NEAR(sum, 1, 1e-12);
  }
}

// A token whose queries or keys are all cut off by relu has no weight: o = 0, and y = bo.
TEST(Cosformer, NoWeightGivesZero) {
  OneKind::Values values = random_values(kRelu);
  for (float& x : values["k"]) x = 0;
  for (float& x : values["k_bias"]) x = -1;
  const OneKind kind("cosformer", kRelu, surroundings(), values);
  const std::vector<float> y = kind.run(random_input(40, kWidth, 5));
  for (Index t = 0; t < 40; ++t)
    for (Index c = 0; c < kWidth; ++c)
      ASSERT_EQ(y[static_cast<std::size_t>(t * kWidth + c)], values["o_bias"][static_cast<std::size_t>(c)]);
}

TEST(Cosformer, EditsAsDefined) {
  const Json settings = {
      {"num_heads", 2}, {"head_dim", 12}, {"value_head_dim", 40}, {"M", 200}, {"bias", false}};
  expect_edits_as_defined("cosformer", settings, surroundings(), 16, kLength);
}

TEST(Cosformer, RefusesWhatItCannotMean) {
  for (const Json& settings :
       {Json{{"num_heads", 2}, {"head_dim", 8}}, Json{{"num_heads", 2}, {"head_dim", 8}, {"M", 0}},
        Json{{"num_heads", 3}, {"num_kv_heads", 2}, {"head_dim", 8}, {"M", 9}},
        Json{{"num_heads", 2}, {"head_dim", 8}, {"M", 9}, {"feature", "exp"}},
        Json{{"num_heads", 2}, {"head_dim", 8}, {"M", 9}, {"eps", 0}}}) {
    Config config("tested", settings, surroundings());
    EXPECT_THROW(Registry::builtin().find("cosformer").tensors(config), Error) << settings.dump();
  }
}

}  // namespace
}  // namespace plait
