#include <gtest/gtest.h>

#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 100, kWidth = 40;
const Json kSettings = {{"num_heads", 4}, {"head_dim", 40}, {"state_dim", 24}, {"num_groups", 2}};

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values("mamba2", settings, surroundings(), 1);
}

// Projections, products with the state, the sum over tokens and the output projection; the norm divides by
// what may be a small sum, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 160;

// The twin is the state-space form h = e^{dt A} h + dt x B', the layer a decayed sum: identity 9.
TEST(Mamba2, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& more : {Json::object(),
                           Json{{"norm", "norm_before_gate"},
                                {"dt_min", 0.3},
                                {"dt_max", 0.9},
                                {"in_bias", true},
                                {"input_multiplier", 1.25},
                                {"slice_multipliers", {0.35, 0.25, 1.5, 0.5, 0.7}}},
                           Json{{"norm", "gate_only"},
                                {"skip_d", false},
                                {"conv", 2},
                                {"conv_bias", false},
                                {"out_bias", true},
                                {"num_groups", 1}}}) {
    Json settings = kSettings;
    settings.update(more);
    const OneKind kind("mamba2", settings, surroundings(), random_values(settings));
    SCOPED_TRACE(more.dump());
    const std::vector<float> whole = kind.run(input);
    expect_near(whole, kind.twin(input), 16, kLength);
    EXPECT_TRUE(same_bits(kind.run(input, {.split = {1, 20, 33}}), whole));
  }
}

// Identity 39: heads of one group in another order, in every tensor with heads.
TEST(Mamba2, HeadsPermute) {
  Json settings = kSettings;
  settings["num_groups"] = 1;
  settings["norm"] = "gate_only";
  const OneKind::Values values = random_values(settings);
  const Index p = 40, inner = 160, n = 24, rows_in = 2 * inner + 2 * n + 4;
  const std::vector<Index> order = {2, 0, 3, 1};
  OneKind::Values permuted = values;
  const auto permute = [&](const char* name, Index offset, Index block) {
    for (Index h = 0; h < 4; ++h)
      std::copy_n(values.at(name).begin() + offset + order[static_cast<std::size_t>(h)] * block, block,
                  permuted[name].begin() + offset + h * block);
  };
  permute("in", 0, p * kWidth);
  permute("in", inner * kWidth, p * kWidth);
  permute("in", (rows_in - 4) * kWidth, kWidth);
  permute("conv_weight", 0, p * 4);
  permute("conv_bias", 0, p);
  for (const char* name : {"dt_bias", "a_log", "d"}) permute(name, 0, 1);
  for (Index row = 0; row < kWidth; ++row) permute("out", row * inner, p);
  const KindInput input = random_input(kRows, kWidth, 5);
  const OneKind one("mamba2", settings, surroundings(), values),
      two("mamba2", settings, surroundings(), permuted);
  // Only the output projection's sum has another order.
  expect_near(two.run(input), widen(one.run(input)), 2, inner);
}

TEST(Mamba2, EditsAsDefined) { expect_edits_as_defined("mamba2", kSettings, surroundings(), 16, kLength); }

TEST(Mamba2, RefusesCrossedLimits) {
  Json settings = kSettings;
  settings["dt_min"] = 2;
  settings["dt_max"] = 1;
  Config config("tested", settings, surroundings());
  EXPECT_THROW(Registry::builtin().find("mamba2").tensors(config), Error);
}

}  // namespace
}  // namespace plait
