#include "layers/reference/latent_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/identities/attention_rows.h"

namespace plait {
namespace {

using testing::expect_near;
using testing::inner_edit;
using testing::kEps;
using testing::KindInput;
using testing::OneKind;
using testing::random_input;
using testing::same_bits;

constexpr Index kRows = 150, kWidth = 24;
constexpr const char* kKind = "latent_attention";
// Two more products than softmax attention has: into and out of the latent.
constexpr double kStages = 4;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  s.grids = {32, 64, 128};
  return s;
}

const Json kPlain = {{"num_heads", 3},
                     {"qk_nope_head_dim", 12},
                     {"qk_rope_head_dim", 8},
                     {"value_head_dim", 20},
                     {"kv_lora_rank", 24}};

OneKind random_layer(const Json& settings, std::uint64_t seed = 1) {
  return OneKind(kKind, settings, surroundings(),
                 OneKind::random_values(kKind, settings, surroundings(), seed));
}

TEST(LatentAttention, MeetsItsTwinInEveryExample) {
  for (const std::string& example : Registry::builtin().find(kKind).examples) {
    const Json settings = Json::parse(example);
    if (settings.contains("cache")) continue;  // NarrowCache
    SCOPED_TRACE(example);
    const OneKind layer = random_layer(settings, 2);
    const KindInput input = random_input(kRows, kWidth, 3);
    expect_near(layer.run(input), layer.twin(input), kStages, kRows);
  }
}

TEST(LatentAttention, CachesTheLatentAndTheSharedKeyOnly) {
  const OneKind layer = random_layer(kPlain);
  ASSERT_EQ(layer.layer().fields().size(), 1u);
  const Field& field = layer.layer().fields()[0];
  EXPECT_EQ(field.width(), 24 + 8);
  EXPECT_EQ(field.dtype, DType::f32);
  // What softmax attention of the same heads keeps: 3 (20 + 20).
  EXPECT_LT(field.width(), 3 * (12 + 8 + 20));
}

// Blocks of rows of several matrices under each other.
std::vector<float> stacked(
    const std::vector<std::pair<const std::vector<float>*, std::pair<Index, Index>>>& parts, Index columns) {
  std::vector<float> all;
  for (const auto& [matrix, rows] : parts)
    all.insert(all.end(), matrix->begin() + rows.first * columns, matrix->begin() + rows.second * columns);
  return all;
}

// The latent is the input itself: kv_a a unit matrix, gains 1, rows of mean square 1. Then keys and values of
// all heads are products of the input, which softmax attention can be given; its rope turns the first
// columns.
TEST(LatentAttention, IsSoftmaxAttentionOverExpandedKeys) {
  constexpr Index kHeads = 3, kNope = 12, kRope = 8, kValue = 20, kQuery = kNope + kRope;
  for (const bool rope : {false, true}) {
    Json settings = kPlain;
    Json plain = {{"num_heads", kHeads}, {"head_dim", kQuery}, {"value_head_dim", kValue}};
    if (rope) {
      settings["rope"] = {{"theta", 100}, {"layout", "interleaved"}};
      plain["rope"] = {{"theta", 100}, {"layout", "interleaved"}, {"dim", kRope}};
    }
    OneKind::Values values = OneKind::random_values(kKind, settings, surroundings(), 4);
    const std::vector<float> unit = testing::unit_matrix(kWidth);
    std::copy(unit.begin(), unit.end(), values["kv_a"].begin());
    std::fill(values["kv_a_norm"].begin(), values["kv_a_norm"].end(), 1.0f);
    KindInput input = random_input(kRows, kWidth, 5);
    for (float& x : input.inputs[0]) x = x > 0 ? 1.0f : -1.0f;

    OneKind::Values expanded;
    expanded["o"] = values["o"];
    for (Index h = 0; h < kHeads; ++h) {
      const Index q = h * kQuery, kv = h * (kNope + kValue);
      const auto append = [&](const char* name, const std::vector<float>& rows) {
        expanded[name].insert(expanded[name].end(), rows.begin(), rows.end());
      };
      append("q", stacked({{&values["q"], {q + kNope, q + kQuery}}, {&values["q"], {q, q + kNope}}}, kWidth));
      append("k", stacked({{&values["kv_a"], {kWidth, kWidth + kRope}}, {&values["kv_b"], {kv, kv + kNope}}},
                          kWidth));
      append("v", stacked({{&values["kv_b"], {kv + kNope, kv + kNope + kValue}}}, kWidth));
    }
    const OneKind latent(kKind, settings, surroundings(), values);
    const OneKind softmax("softmax_attention", plain, surroundings(), expanded);
    expect_near(latent.run(input), testing::widen(softmax.run(input)), kStages, kRows);
    // The norm's epsilon, 1e-6, is all that the doubles differ by.
    EXPECT_LE(testing::relative_error(latent.twin(input), softmax.twin(input)), 1e-5);
  }
}

TEST(LatentAttention, WithoutRopeTheOrderOfEarlierTokensIsOfNoConsequence) {
  for (const bool rope : {false, true}) {
    Json settings = kPlain;
    if (rope) settings["rope"] = {{"theta", 100}};
    const OneKind layer = random_layer(settings);
    const KindInput input = random_input(kRows, kWidth, 6);
    KindInput reversed = input;
    for (Index t = 0; t + 1 < kRows; ++t)
      std::copy_n(input.inputs[0].begin() + (kRows - 2 - t) * kWidth, kWidth,
                  reversed.inputs[0].begin() + t * kWidth);
    const auto last = [&](const KindInput& rows) {
      const std::vector<float> y = layer.run(rows);
      return std::vector<float>(y.end() - kWidth, y.end());
    };
    const double error = testing::relative_error(testing::widen(last(reversed)), testing::widen(last(input)));
    if (rope)
      EXPECT_GE(error, 1e-2);
    else
      EXPECT_LE(error, kStages * kEps * std::sqrt(double{kRows}));
  }
}

// All positions moved by the same: q and the shared key turn by the same angle more.
TEST(LatentAttention, RopeIsRelative) {
  Json settings = kPlain;
  settings["rope"] = {{"theta", 100}};
  const OneKind layer = random_layer(settings);
  const KindInput input = random_input(kRows, kWidth, 7);
  const std::vector<float> plain = layer.run(input);
  const auto shifted = testing::run_pieces(
      layer, input, {{0, kRows, {inner_edit(Site::position, Operator::shift, {}, 1000)}}});
  EXPECT_FALSE(same_bits(shifted, plain));
  expect_near(shifted, testing::widen(plain), kStages, kRows);
  // Rope off is a layer without rope, for the same weights.
  const auto none =
      testing::run_pieces(layer, input, {{0, kRows, {inner_edit(Site::position, Operator::none)}}});
  EXPECT_TRUE(same_bits(none, random_layer(kPlain).run(input)));
  EXPECT_THROW(
      testing::run_pieces(layer, input, {{0, kRows, {inner_edit(Site::position, Operator::none, {1})}}}),
      Error);
}

TEST(LatentAttentionSites, KnockoutHidesKeysOfNamedHeads) {
  const OneKind layer = random_layer(kPlain);
  const KindInput input = random_input(kRows, kWidth, 8);
  Edit hide = inner_edit(Site::score, Operator::knockout, {0, 2});
  hide.key_begin = 0;
  hide.key_end = 40;
  const auto hidden = testing::run_pieces(layer, input, {{0, 40}, {40, kRows, {hide}}});
  const auto plain = layer.run(input);
  EXPECT_TRUE(same_bits(std::span(hidden).first(40 * kWidth), std::span(plain).first(40 * kWidth)));
  Edit all = hide;
  all.heads = {};
  // Hidden from all heads, earlier tokens may be anything: there are no positions without rope.
  const KindInput rest{kRows - 40, {{input.inputs[0].begin() + 40 * kWidth, input.inputs[0].end()}}};
  const auto without = testing::run_pieces(layer, input, {{0, 40}, {40, kRows, {all}}});
  expect_near(std::vector<float>(without.begin() + 40 * kWidth, without.end()),
              testing::widen(layer.run(rest)), kStages, kRows);
  EXPECT_FALSE(same_bits(hidden, without));
}

TEST(LatentAttention, AnOpenGateIsNoGateAndAZeroGateHalves) {
  for (const char* granularity : {"elementwise", "headwise"}) {
    Json settings = kPlain;
    settings["gate"] = "sigmoid";
    settings["gate_granularity"] = granularity;
    OneKind::Values values = OneKind::random_values(kKind, settings, surroundings(), 1);
    const KindInput input = random_input(kRows, kWidth, 9);
    std::fill(values["gate"].begin(), values["gate"].end(), 0.0f);
    const OneKind gated(kKind, settings, surroundings(), values);
    values.erase("gate");
    const OneKind plain(kKind, kPlain, surroundings(), values);
    std::vector<float> halves = plain.run(input);
    for (float& y : halves) y *= 0.5f;
    EXPECT_TRUE(same_bits(gated.run(input), halves));
    const auto open =
        testing::run_pieces(gated, input, {{0, kRows, {inner_edit(Site::gate, Operator::one)}}});
    EXPECT_TRUE(same_bits(open, plain.run(input)));
  }
}

TEST(LatentAttention, RefusesWhatItCannotMean) {
  const auto refuse = [](const char* key, const Json& value) {
    Json settings = kPlain;
    settings[key] = value;
    Config config("blocks.0.mixer", settings, surroundings());
    try {
      read_latent_attention(config);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refuse("kv_lora_rank", 0).find("kv_lora_rank"), std::string::npos);
  EXPECT_NE(refuse("gate_granularity", "headwise").find("gate_granularity"), std::string::npos);
  EXPECT_NE(refuse("cache", "q8").find("q8"), std::string::npos);
  EXPECT_NE(refuse("rope", {{"theta", 100}, {"dim", 10}}).find("dim"), std::string::npos);
  EXPECT_NE(refuse("num_kv_heads", 1).find("num_kv_heads"), std::string::npos);
}

}  // namespace
}  // namespace plait
