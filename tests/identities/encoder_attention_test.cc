// softmax_attention in an encoder: all keys are seen, a window looks both ways.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "runtime/base/error.h"
#include "tests/identities/attention_rows.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"

namespace plait {
namespace {

using testing::expect_near;
using testing::inner_edit;
using testing::KindInput;
using testing::OneKind;
using testing::random_input;
using testing::same_bits;

constexpr Index kRows = 150, kWidth = 24;
constexpr const char* kKind = "softmax_attention";
const Json kPlain = {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 12}, {"value_head_dim", 20}};

Surroundings surroundings(bool causal) {
  Surroundings s;
  s.width = kWidth;
  s.grids = {32, 64, 128};
  s.causal = causal;
  return s;
}

Json with(Json settings, const Json& more) {
  settings.update(more);
  return settings;
}

OneKind random_kind(const Json& settings, std::uint64_t seed, bool causal = false) {
  return {kKind, settings, surroundings(causal),
          OneKind::random_values(kKind, settings, surroundings(causal), seed)};
}

std::span<const float> row(const std::vector<float>& all, Index r) {
  return std::span(all).subspan(static_cast<std::size_t>(r * kWidth), kWidth);
}

TEST(EncoderAttention, MeetsItsTwinInEveryExample) {
  const Kind& kind = Registry::builtin().find(kKind);
  const auto input = random_input(kRows, kWidth, 1);
  ASSERT_FALSE(kind.encoder_examples.empty());
  for (const std::string& settings : kind.encoder_examples) {
    SCOPED_TRACE(settings);
    const OneKind layer = random_kind(Json::parse(settings), 2);
    expect_near(layer.run(input), layer.twin(input), kind.bound_factor, kRows);
  }
}

// The last row sees the same keys in both graphs; the first sees itself only in one of them.
TEST(EncoderAttention, TheLastRowIsCausal) {
  const Json settings = with(kPlain, {{"rope", {{"theta", 10000}}}});
  const auto input = random_input(kRows, kWidth, 3);
  const std::vector<float> encoder = random_kind(settings, 4).run(input),
                           causal = random_kind(settings, 4, true).run(input);
  EXPECT_TRUE(same_bits(row(encoder, kRows - 1), row(causal, kRows - 1)));
  EXPECT_FALSE(same_bits(row(encoder, 0), row(causal, 0)));
}

TEST(EncoderAttention, PermutedTokensArePermutedRows) {
  const OneKind layer = random_kind(kPlain, 5);
  const auto input = random_input(kRows, kWidth, 6);
  KindInput reversed{kRows, {{}}, {}};
  for (Index r = kRows - 1; r >= 0; --r)
    for (const float x : row(input.inputs[0], r)) reversed.inputs[0].push_back(x);
  const std::vector<float> y = layer.run(input), back = layer.run(reversed);
  std::vector<double> expected;
  for (Index r = kRows - 1; r >= 0; --r)
    for (const float x : row(back, r)) expected.push_back(static_cast<double>(x));
  expect_near(y, expected, 8, kRows);
}

// Window w: row i sees j with |i - j| < w. Checked by what each token's change reaches.
TEST(EncoderAttention, AWindowLooksBothWays) {
  const Index window = 9, sinks = 2;
  const OneKind layer = random_kind(with(kPlain, {{"window", window}, {"sinks", sinks}}), 7),
                wide = random_kind(with(kPlain, {{"window", kRows}}), 7), all = random_kind(kPlain, 7);
  const auto input = random_input(kRows, kWidth, 8);
  const std::vector<float> y = layer.run(input);
  EXPECT_TRUE(same_bits(wide.run(input), all.run(input)));
  for (const Index changed : {Index{1}, Index{2}, Index{70}, kRows - 1}) {
    KindInput other = input;
    other.inputs[0][static_cast<std::size_t>(changed * kWidth)] += 1;
    const std::vector<float> z = layer.run(other);
    for (Index r = 0; r < kRows; ++r)
      EXPECT_EQ(same_bits(row(z, r), row(y, r)), changed >= sinks && std::abs(r - changed) >= window)
          << "token " << changed << ", row " << r;
  }
}

TEST(EncoderAttention, AWindowThatIsSetIsTheLayersOwn) {
  const OneKind layer = random_kind(kPlain, 7),
                own = random_kind(with(kPlain, {{"window", 9}, {"sinks", 2}}), 7);
  const auto input = random_input(kRows, kWidth, 8);
  Edit set = inner_edit(Site::window, Operator::set, {}, 9);
  set.sinks = 2;
  EXPECT_TRUE(same_bits(layer.run(input, {.edits = {set}}), own.run(input)));
}

// A head that is scaled before the output projection is one whose columns of it are.
TEST(EncoderAttention, EditedHeadsOfEveryKind) {
  const std::pair<const char*, Json> kinds[] = {
      {kKind, {{"num_heads", 3}, {"head_dim", 8}}},
      {"sinkhorn_attention", {{"num_heads", 3}, {"head_dim", 8}}},
      {"softmax_free_attention", {{"num_heads", 3}, {"head_dim", 8}, {"ratio", 4}, {"conv", 3}}}};
  const auto input = random_input(kRows, kWidth, 11);
  for (const auto& [kind, settings] : kinds) {
    SCOPED_TRACE(kind);
    auto values = OneKind::random_values(kind, settings, surroundings(false), 12);
    const OneKind layer(kind, settings, surroundings(false), values);
    const std::vector<float> edited =
        layer.run(input, {.edits = {inner_edit(Site::head, Operator::zero, {0}),
                                    inner_edit(Site::head, Operator::scale, {2}, 3)}});
    std::vector<float>& o = values["o"];  // [width, 3 heads of 8]
    for (std::size_t i = 0; i < o.size(); ++i) o[i] *= i % 24 < 8 ? 0.0f : i % 24 < 16 ? 1.0f : 3.0f;
    expect_near(edited, OneKind(kind, settings, surroundings(false), values).twin(input),
                Registry::builtin().find(kind).bound_factor, kRows);
  }
}

// full_mean divides all logits by one number, the clipped mean of w.x.
TEST(EncoderAttention, FullMeanIsOneTemperature) {
  const Json score = {{"score", {"scaled_dot", "focal_attention"}}};
  const Json learned =
      with(with(kPlain, score), {{"focal_attention", {{"mode", "full_mean"}, {"tau_min", 0.01}}}});
  auto values = OneKind::random_values(kKind, learned, surroundings(false), 9);
  auto input = random_input(kRows, kWidth, 10);
  for (Index r = 0; r < kRows; ++r)
    input.inputs[0][static_cast<std::size_t>(r * kWidth)] = r % 2 == 0 ? 1.5f : 4.5f;
  values["focal_tau"].assign(kWidth, 0);
  values["focal_tau"][0] = 1;  // tau of the tokens 1.5 and 4.5, so 3
  const OneKind layer(kKind, learned, surroundings(false), values);
  values.erase("focal_tau");
  const Json fixed = with(with(kPlain, score), {{"focal_attention", {{"t", 3 / std::sqrt(12.0)}}}});
  const OneKind same(kKind, fixed, surroundings(false), values);
  expect_near(layer.run(input), same.twin(input), 8, kRows);
}

TEST(EncoderAttention, RefusesWhatGoesBackAlongTheTokens) {
  const auto refuse = [](const Json& settings, bool causal, const std::string& part) {
    try {
      random_kind(with(kPlain, settings), 1, causal);
      ADD_FAILURE() << settings.dump() << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refuse({{"score", {"scaled_dot", "alibi"}}}, false, "alibi");
  refuse({{"score", {"scaled_dot", "forgetting_attention"}}}, false, "forgetting_attention");
  refuse({{"normaliser", "stick_breaking"}}, false, "stick_breaking");
  const Json focal = {"scaled_dot", "focal_attention"};
  refuse({{"score", focal}, {"focal_attention", {{"mode", "prefix_mean"}}}}, false, "prefix_mean");
  refuse({{"score", focal}, {"focal_attention", {{"mode", "full_mean"}}}}, true, "full_mean");
}

}  // namespace
}  // namespace plait
