#include <gtest/gtest.h>

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
  return OneKind::random_values("linear_attention", settings, surroundings(), 1);
}

// Projections, products with the state, the sum over tokens and the output projection; weights of both signs
// and the norm divide by what may be a small sum, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 160;

TEST(LinearAttention, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& settings : {Json{{"num_heads", 4}, {"head_dim", 24}, {"value_head_dim", 40}},
                               Json{{"num_heads", 4},
                                    {"num_kv_heads", 2},
                                    {"head_dim", 9},
                                    {"value_head_dim", 32},
                                    {"feature_map", "taylor2"}},
                               Json{{"num_heads", 2},
                                    {"num_kv_heads", 1},
                                    {"head_dim", 24},
                                    {"feature_map", "relu"},
                                    {"output_norm", true}},
                               Json{{"num_heads", 2},
                                    {"head_dim", 40},
                                    {"feature_map", "identity"},
                                    {"normalise", false},
                                    {"scale", 0.5}},
                               Json{{"num_heads", 4},
                                    {"num_kv_heads", 2},
                                    {"head_dim", 24},
                                    {"value_head_dim", 40},
                                    {"feature_map", "positive_random_features"},
                                    {"M", 70}}}) {
    const OneKind kind("linear_attention", settings, surroundings(), random_values(settings));
    SCOPED_TRACE(settings.dump());
    const std::vector<float> whole = kind.run(input);
    expect_near(whole, kind.twin(input), 16, kLength);
    EXPECT_TRUE(same_bits(kind.run(input, {.split = {1, 20, 33}}), whole));
  }
}

// Identities 21 and 22: attention weights written out, w_ij = 1 + t + t^2 / 2 with t = q.k / sqrt(d), over
// all keys.
TEST(LinearAttention, TaylorWeightsAreNormalisedPolynomials) {
  const Index d = 12;
  const Json settings = {
      {"num_heads", 2}, {"head_dim", d}, {"value_head_dim", 20}, {"feature_map", "taylor2"}};
  const OneKind::Values values = random_values(settings);
  const KindInput input = random_input(kRows, kWidth, 3);
  WeightedPairs pairs{2, 2, d, 20};
  pairs.weight = [](const double* q, const double* k, Index, Index) {
    const double t = dot(q, k, d) / std::sqrt(static_cast<double>(d));
    return 1 + t + t * t / 2;
  };
  pairs.divisor = [](double mass) { return mass + 1e-10 * std::sqrt(static_cast<double>(d)); };  // eps / s
  const std::vector<double> expected = pairs.run(values, input);
  const OneKind kind("linear_attention", settings, surroundings(), values);
  expect_near(kind.run(input), expected, 16, kLength);
  expect_same(kind.twin(input), expected);
}

Json random_settings(Index features, Index head_dim) {
  return {{"num_heads", 4},       {"num_kv_heads", 2}, {"head_dim", head_dim},
          {"value_head_dim", 20}, {"M", features},     {"feature_map", "positive_random_features"}};
}

double square(const double* x, Index n) { return dot(x, x, n); }

// softmax-family 2.14, exact recurrence = quadratic form: phi_m(q) phi_m(k) written out.
TEST(PositiveRandomFeatures, WeightsAreWrittenOut) {
  const Index d = 12, count = 30;
  const Json settings = random_settings(count, d);
  const OneKind::Values values = random_values(settings);
  const std::vector<double> z = widen(values.at("z")), a = widen(values.at("a"));
  const KindInput input = random_input(kRows, kWidth, 4);
  WeightedPairs pairs{4, 2, d, 20};
  pairs.weight = [&](const double* q, const double* k, Index, Index) {
    const double root = std::sqrt(static_cast<double>(d));
    double sum = 0;
    for (Index m = 0; m < count; ++m) {
      const double* direction = z.data() + m * d;
      sum += a[static_cast<std::size_t>(m)] / static_cast<double>(count) *
             std::exp((dot(direction, q, d) + dot(direction, k, d)) / std::sqrt(root) -
                      (square(q, d) + square(k, d)) / (2 * root));
    }
    return sum;
  };
  const std::vector<double> expected = pairs.run(values, input);
  const OneKind kind("linear_attention", settings, surroundings(), values);
  expect_same(kind.twin(input), expected);
  expect_near(kind.run(input), expected, 16, kLength);
}

// M -> inf is softmax, with an error like M^-1/2: 64 times as many features, an eighth of the error. The rows
// share their z, so the quotient of two errors is known to a factor of 2. Short queries and keys, because the
// variance of a weight grows like exp(|q + k|^2 / sqrt d).
TEST(PositiveRandomFeatures, ManyFeaturesAreSoftmax) {
  const Index d = 8;
  KindInput input = random_input(40, kWidth, 5);
  for (float& x : input.inputs[0]) x *= 0.5f;
  WeightedPairs pairs{4, 2, d, 20};
  pairs.weight = [](const double* q, const double* k, Index, Index) {
    return std::exp(dot(q, k, d) / std::sqrt(static_cast<double>(d)));
  };
  const auto error = [&](Index features) {
    const Json settings = random_settings(features, d);
    OneKind::Values values = random_values(settings);
    values["a"].assign(static_cast<std::size_t>(features), 1.0f);
    const OneKind kind("linear_attention", settings, surroundings(), values);
    return relative_error(kind.twin(input), pairs.run(values, input));
  };
  const double few = error(256), many = error(256 * 64);
  EXPECT_GT(few / many, 4);
  EXPECT_LT(few / many, 16);
}

// Keys on top of a direction reach the bound |z|^2 / 2 of its exponent, here 200: e^200 is no f32. One head
// whose queries and keys are the input, d^(1/4) z for every second token and short for the others. An
// exponent of size E is off by E eps and its weight relatively as much; E = 2 * 200 for a pair.
TEST(PositiveRandomFeatures, ExponentsAreBounded) {
  const Index d = 16, count = 10;
  Surroundings around;
  around.width = d;
  const Json settings = {
      {"num_heads", 1}, {"head_dim", d}, {"M", count}, {"feature_map", "positive_random_features"}};
  OneKind::Values values = OneKind::random_values("linear_attention", settings, around, 6);
  for (const char* name : {"q", "k"}) {
    values[name].assign(static_cast<std::size_t>(d * d), 0.0f);
    for (Index i = 0; i < d; ++i) values[name][static_cast<std::size_t>(i * d + i)] = 1;
  }
  std::vector<float>& z = values["z"];
  for (Index m = 0; m < count; ++m) {
    double sum = 0;
    for (Index i = m * d; i < (m + 1) * d; ++i)
      sum += std::pow(static_cast<double>(z[static_cast<std::size_t>(i)]), 2);
    for (Index i = m * d; i < (m + 1) * d; ++i)
      z[static_cast<std::size_t>(i)] *= static_cast<float>(20 / std::sqrt(sum));
  }
  KindInput input = random_input(kRows, d, 7);
  for (Index t = 0; t < kRows; t += 2)
    for (Index i = 0; i < d; ++i)
      input.inputs[0][static_cast<std::size_t>(t * d + i)] =
          2 * z[static_cast<std::size_t>(t / 2 % count * d + i)];
  const OneKind kind("linear_attention", settings, around, values);
  expect_near(kind.run(input), kind.twin(input), 2 * 200, 1);
}

// A sum without any weight is 0, not 0 / 0.
TEST(PositiveRandomFeatures, NothingWrittenGivesZero) {
  const Json settings = random_settings(30, 12);
  const OneKind kind("linear_attention", settings, surroundings(), random_values(settings));
  const Edit edit = range_edit(Site::write, Operator::zero, 0, 40).edit;
  for (const float y : kind.run(random_input(40, kWidth, 8), {.edits = {edit}})) ASSERT_EQ(y, 0);
}

// A feature of weight 0 is not there; without any the sum is empty.
TEST(PositiveRandomFeatures, WeightsMayBeZero) {
  const Json settings = random_settings(30, 12), fewer = random_settings(20, 12);
  OneKind::Values values = random_values(settings);
  OneKind::Values some = values;
  some["a"].resize(20);
  some["z"].resize(20 * 12);
  std::fill(values["a"].begin() + 20, values["a"].end(), 0.0f);
  const KindInput input = random_input(kRows, kWidth, 9);
  const OneKind kind("linear_attention", settings, surroundings(), values);
  expect_same(kind.twin(input), OneKind("linear_attention", fewer, surroundings(), some).twin(input));
  expect_near(kind.run(input), kind.twin(input), 16, kLength);
  std::fill(values["a"].begin(), values["a"].end(), 0.0f);
  for (const float y : OneKind("linear_attention", settings, surroundings(), values).run(input))
    ASSERT_EQ(y, 0);
}

TEST(PositiveRandomFeatures, RefusesWhatItCannotMean) {
  const auto build = [](Json settings, float weight) {
    OneKind::Values values = random_values(random_settings(30, 12));
    values["a"][7] = weight;
    OneKind("linear_attention", settings, surroundings(), values);
  };
  Json settings = random_settings(30, 12);
  EXPECT_NO_THROW(build(settings, 0.5f));
  EXPECT_THROW(build(settings, -0.5f), Error);
  EXPECT_THROW(build(settings, std::nanf("")), Error);
  settings["normalise"] = false;
  EXPECT_THROW(build(settings, 0.5f), Error);
  settings = random_settings(30, 12);
  settings["eps"] = 1e-6;
  EXPECT_THROW(build(settings, 0.5f), Error);
  settings = random_settings(30, 12);
  settings.erase("M");
  EXPECT_THROW(build(settings, 0.5f), Error);
}

TEST(LinearAttention, EditsAsDefined) {
  expect_edits_as_defined("linear_attention", {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}},
                          surroundings(), 16, kLength);
}

TEST(LinearAttention, RefusesUnevenHeads) {
  const Json settings = {{"num_heads", 3}, {"num_kv_heads", 2}, {"head_dim", 8}};
  Config config("tested", settings, surroundings());
  EXPECT_THROW(Registry::builtin().find("linear_attention").tensors(config), Error);
}

}  // namespace
}  // namespace plait
