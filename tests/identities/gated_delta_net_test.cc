#include <gtest/gtest.h>

#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 100, kWidth = 40;
const Json kSettings = {{"num_heads", 2}, {"num_value_heads", 4}, {"head_dim", 24}, {"value_head_dim", 40}};

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values("gated_delta_net", settings, surroundings(), 1);
}

// Projections, products with the state, the sum over tokens and the output projection follow each other;
// their random errors add in squares. The norms divide by what may be a small sum, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 160;

TEST(GatedDeltaNet, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (Json settings : {kSettings, Json{{"num_heads", 3}, {"head_dim", 40}, {"value_head_dim", 24}}})
    for (const Json& more : {Json::object(), Json{{"conv", 0}, {"gate", "sigmoid"}},
                             Json{{"negative_eigenvalues", true}, {"gate", "none"}}}) {
      settings.update(more);
      const OneKind kind("gated_delta_net", settings, surroundings(), random_values(settings));
      expect_near(kind.run(input), kind.twin(input), 16, kLength);
    }
}

// Identity 1: the chunk length is no part of the function.
TEST(GatedDeltaNet, AnyChunkLength) {
  const KindInput input = random_input(kRows, kWidth, 3);
  for (const Index chunk : {1, 3, 8, 16, 64}) {
    Surroundings s = surroundings();
    s.grids.chunk = chunk;
    const OneKind kind("gated_delta_net", kSettings, s, random_values(kSettings));
    const std::vector<float> whole = kind.run(input);
    expect_near(whole, kind.twin(input), 16, kLength);
    EXPECT_TRUE(same_bits(kind.run(input, {.split = {7, 1, 40}}), whole)) << chunk;
  }
}

// Identity 3: with a rate of zero, exp(a_log) = 0, the state does not decay: DeltaNet, bit for bit.
TEST(GatedDeltaNet, WithoutDecayIsDeltaNet) {
  const Json settings = {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}};
  OneKind::Values values = random_values(settings);
  values["a_log"].assign(2, -200.0f);
  const KindInput input = random_input(kRows, kWidth, 4);
  const OneKind gated("gated_delta_net", settings, surroundings(), values);
  for (const char* name : {"a", "a_log", "dt_bias"}) values.erase(name);
  Json plain = settings;
  plain["gate"] = "silu";
  const OneKind delta("delta_net", plain, surroundings(), values);
  EXPECT_TRUE(same_bits(gated.run(input), delta.run(input)));
}

// Identity 39: value heads of one key head in another order, in every tensor with value heads.
TEST(GatedDeltaNet, HeadsPermute) {
  const OneKind::Values values = random_values(kSettings);
  const std::vector<Index> order = {1, 0, 3, 2};
  OneKind::Values permuted = values;
  for (const char* name : {"v", "v_conv", "a", "beta", "a_log", "dt_bias", "gate"}) {
    const auto block = static_cast<Index>(values.at(name).size()) / 4;
    for (Index h = 0; h < 4; ++h)
      std::copy_n(values.at(name).begin() + order[static_cast<std::size_t>(h)] * block, block,
                  permuted[name].begin() + h * block);
  }
  for (Index row = 0; row < kWidth; ++row)
    for (Index h = 0; h < 4; ++h)
      std::copy_n(values.at("o").begin() + row * 160 + order[static_cast<std::size_t>(h)] * 40, 40,
                  permuted["o"].begin() + row * 160 + h * 40);
  const KindInput input = random_input(kRows, kWidth, 5);
  const OneKind one("gated_delta_net", kSettings, surroundings(), values);
  const OneKind two("gated_delta_net", kSettings, surroundings(), permuted);
  // Only the output projection's sum has another order.
  expect_near(two.run(input), widen(one.run(input)), 2, 160);
}

TEST(GatedDeltaNet, EditsAsDefined) {
  expect_edits_as_defined("gated_delta_net", kSettings, surroundings(), 16, kLength);
}

// Identity 40: a sequence with resets is its parts, each alone; at a chunk boundary to the last bit.
TEST(GatedDeltaNet, ResetsAreFreshStarts) {
  const Index kPart = 64;
  const auto model = random_model(card_of_kind("gated_delta_net", kSettings), 6);
  const std::vector<Token> tokens = Numbers(7).tokens(3 * kPart, model->card().vocab);
  StreamOptions options;
  Edit reset;
  reset.node = "blocks.0.mixer";
  reset.site = Site::state;
  reset.op = Operator::reset_every;
  reset.value = static_cast<double>(kPart);
  reset.reset_conv = true;
  options.edits = {reset};
  Stream stream(model, options);
  const std::vector<float> all = all_logits(stream, tokens, {50});
  for (Index part = 0; part < 3; ++part) {
    Stream alone(model);
    const std::vector<float> own =
        all_logits(alone, std::span(tokens).subspan(static_cast<std::size_t>(part * kPart), kPart), {kPart});
    EXPECT_TRUE(
        same_bits(own, std::span(all).subspan(static_cast<std::size_t>(part) * own.size(), own.size())))
        << part;
  }
}

}  // namespace
}  // namespace plait
