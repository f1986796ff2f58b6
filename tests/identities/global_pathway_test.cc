// What softmax-family 4.9 says of the global pathway.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"

namespace plait {
namespace {

using testing::expect_near;
using testing::KindInput;
using testing::OneKind;
using testing::random_input;
using testing::same_bits;

constexpr Index kRows = 150, kWidth = 24;
constexpr const char* kKind = "global_pathway";

Surroundings surroundings(bool causal) {
  Surroundings s;
  s.width = kWidth;
  s.causal = causal;
  return s;
}

OneKind::Values random_values(const Json& settings, std::uint64_t seed) {
  return OneKind::random_values(kKind, settings, surroundings(true), seed);
}

KindInput first_rows(const KindInput& input, Index rows) {
  return {rows, {{input.inputs[0].begin(), input.inputs[0].begin() + rows * kWidth}}, {}};
}

TEST(GlobalPathway, MeetsItsTwinInEveryExample) {
  const Kind& kind = Registry::builtin().find(kKind);
  const auto input = random_input(kRows, kWidth, 1);
  for (const std::string& text : kind.examples)
    for (const bool causal : {true, false}) {
      SCOPED_TRACE(cat(text, causal ? ", causal" : ", encoder"));
      const Json settings = Json::parse(text);
      const OneKind layer(kKind, settings, surroundings(causal), random_values(settings, 2));
      expect_near(layer.run(input), layer.twin(input), kind.bound_factor, 64);
    }
}

// A row of a causal graph is the last row of an encoder that has read so far.
TEST(GlobalPathway, CausalRowsAreEncodersOfTheirPrefix) {
  const Json settings = {{"dim", 16}};
  const auto values = random_values(settings, 3);
  const OneKind causal(kKind, settings, surroundings(true), values),
      encoder(kKind, settings, surroundings(false), values);
  const auto input = random_input(40, kWidth, 4);
  const std::vector<float> rows = causal.run(input);
  for (const Index n : {1, 2, 17, 40}) {
    const std::vector<float> whole = encoder.run(first_rows(input, n));
    const auto row = static_cast<std::size_t>((n - 1) * kWidth);
    EXPECT_TRUE(same_bits(std::span(whole).subspan(row, kWidth), std::span(rows).subspan(row, kWidth))) << n;
  }
}

// Without a preference the pool is the mean; an untrained gate (zeros) lets half of it through, or a quarter.
TEST(GlobalPathway, StartsAsAMeanBehindAHalfOpenGate) {
  for (const bool hierarchical : {false, true}) {
    const Json settings = {{"dim", kWidth}, {"gate", hierarchical ? "hierarchical" : "flat"}};
    OneKind::Values values = random_values(settings, 5);
    for (const char* name : {"pool", "gate", "gate_bias", "value", "o"})
      values[name].assign(values[name].size(), 0);
    for (std::size_t i = 0; i < kWidth; ++i)
      values["value"][i * kWidth + i] = values["o"][i * kWidth + i] = 1;
    const auto input = random_input(kRows, kWidth, 6);
    std::vector<double> mean(kWidth), expected;
    for (std::size_t i = 0; i < input.inputs[0].size(); ++i)
      mean[i % kWidth] += static_cast<double>(input.inputs[0][i]) / kRows;
    for (Index r = 0; r < kRows; ++r)
      for (const double m : mean) expected.push_back((hierarchical ? 0.25 : 0.5) * m);
    const OneKind encoder(kKind, settings, surroundings(false), values);
    expect_near(encoder.run(input), expected, 4, 1);
  }
}

// One logit far above the others is a choice, early or late.
TEST(GlobalPathway, AFarLogitIsAChoice) {
  const Json settings = {{"dim", 8}};
  OneKind::Values values = random_values(settings, 7);
  values["pool"].assign(values["pool"].size(), 0);
  values["pool"][0] = 1;
  const OneKind causal(kKind, settings, surroundings(true), values);
  auto input = random_input(30, kWidth, 8);
  for (Index r = 0; r < 30; ++r)
    input.inputs[0][static_cast<std::size_t>(r * kWidth)] = r == 12 ? 1e4f : static_cast<float>(-r);
  const std::vector<float> rows = causal.run(input);
  for (const float x : rows) ASSERT_TRUE(std::isfinite(x));
  // From token 12 on all rows show its value: the input rows differ in their gates only.
  const auto ratio = [&](Index r, Index c) {
    return rows[static_cast<std::size_t>(r * kWidth + c)] / rows[static_cast<std::size_t>(r * kWidth)];
  };
  for (Index r = 13; r < 30; ++r)
    for (Index c = 1; c < kWidth; ++c) EXPECT_NEAR(ratio(r, c) / ratio(12, c), 1, 8 * testing::kEps);
}

}  // namespace
}  // namespace plait
