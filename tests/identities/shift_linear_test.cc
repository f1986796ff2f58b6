// The parts of FoX-Pro's block (arXiv 2503.02130): keys and values mixed with those of the token before,
// gains per head of the q/k norm, a norm of every head's output.
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
constexpr const char* kKind = "softmax_attention";
const Json kPlain = {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 12}, {"value_head_dim", 20}};

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  s.grids = {32, 64, 128};
  return s;
}

Json with(Json settings, const char* key, const Json& value) {
  settings[key] = value;
  return settings;
}

OneKind layer_of(const Json& settings, const OneKind::Values& values) {
  return OneKind(kKind, settings, surroundings(), values);
}

OneKind::Values values_of(const Json& settings) {
  return OneKind::random_values(kKind, settings, surroundings(), 3);
}

// A window of 1 gives a row its own value; Wv and Wo are unit matrices, so y_t = a x_{t-1} + (1 - a) x_t.
TEST(ShiftLinear, MixesWithTheTokenBefore) {
  const Json settings = {{"num_heads", 2}, {"head_dim", kWidth / 2}, {"window", 1}, {"shift_linear", true}};
  OneKind::Values values = values_of(settings);
  values["v"] = values["o"] = testing::unit_matrix(kWidth);
  const OneKind layer = layer_of(settings, values);
  const KindInput input = random_input(kRows, kWidth, 4);
  const std::vector<double> x = testing::widen(input.inputs[0]), gate = testing::widen(values["v_shift"]);
  const auto expected = [&](Index hole) {
    std::vector<double> y;
    for (Index t = 0; t < kRows; ++t)
      for (Index c = 0; c < kWidth; ++c) {
        double logit = 0;
        for (Index i = 0; i < kWidth; ++i)
          logit += gate[static_cast<std::size_t>(c / (kWidth / 2) * kWidth + i)] *
                   x[static_cast<std::size_t>(t * kWidth + i)];
        const double a = 1 / (1 + std::exp(-logit));
        const double before = t == 0 || t - 1 == hole ? 0 : x[static_cast<std::size_t>((t - 1) * kWidth + c)];
        y.push_back(t == hole ? 0 : a * before + (1 - a) * x[static_cast<std::size_t>(t * kWidth + c)]);
      }
    return y;
  };
  expect_near(layer.run(input), expected(-1), 1, kWidth);
  // A skipped token has neither key nor value: the next one meets zeros.
  const auto skipped = testing::run_pieces(layer, input, {{0, 70}, {70, 71, {}, true}, {71, kRows}});
  expect_near(skipped, expected(70), 1, kWidth);
}

TEST(ShiftLinear, AClosedGateIsNoShift) {
  const Json settings = with(with(kPlain, "shift_linear", true), "rope", {{"theta", 10000}});
  OneKind::Values values = values_of(settings);
  KindInput input = random_input(kRows, kWidth, 5);
  for (Index t = 0; t < kRows; ++t) input.inputs[0][static_cast<std::size_t>(t * kWidth)] = 1;
  for (const char* name : {"k_shift", "v_shift"})
    for (std::size_t i = 0; i < values[name].size(); ++i) values[name][i] = i % kWidth == 0 ? -200.0f : 0.0f;
  const OneKind shifted = layer_of(settings, values);
  const auto off =
      testing::run_pieces(shifted, input, {{0, kRows, {inner_edit(Site::conv, Operator::identity)}}});
  const std::vector<float> closed = shifted.run(input);
  values.erase("k_shift");
  values.erase("v_shift");
  const std::vector<float> plain = layer_of(with(kPlain, "rope", {{"theta", 10000}}), values).run(input);
  EXPECT_TRUE(same_bits(closed, plain));
  EXPECT_TRUE(same_bits(off, plain));
}

TEST(ShiftLinear, KeepsOneTokenBefore) {
  const OneKind layer =
      layer_of(with(kPlain, "shift_linear", true), values_of(with(kPlain, "shift_linear", true)));
  const auto fields = layer.layer().fields();
  ASSERT_EQ(fields.size(), 4u);
  EXPECT_EQ(fields[2].width(), 2 * 12);
  EXPECT_EQ(fields[3].width(), 2 * 20);
  for (const Index field : {2, 3}) EXPECT_EQ(fields[static_cast<std::size_t>(field)].window, 2);
}

TEST(QkNorm, EqualGainsPerHeadAreSharedGains) {
  for (const char* form : {"plain", "one_plus"}) {
    const Json shared = with(kPlain, "qk_norm", {{"form", form}});
    const Json own = with(kPlain, "qk_norm", {{"form", form}, {"gains", "per_head"}});
    OneKind::Values values = values_of(shared);
    const KindInput input = random_input(kRows, kWidth, 6);
    const std::vector<float> expected = layer_of(shared, values).run(input);
    for (const char* name : {"q_norm", "k_norm"}) {
      const std::vector<float> gain = values[name];
      for (int h = 1; h < (*name == 'q' ? 4 : 2); ++h)
        values[name].insert(values[name].end(), gain.begin(), gain.end());
    }
    const OneKind layer = layer_of(own, values);
    EXPECT_TRUE(same_bits(layer.run(input), expected));
    // Per head: an edit that names two heads of a group leaves the others' gains where they are.
    values["k_norm"][12] += 1;
    const auto off = [&](const OneKind::Values& v) {
      return testing::run_pieces(layer_of(own, v), input,
                                 {{0, kRows, {inner_edit(Site::qk_norm, Operator::off, {2, 3})}}});
    };
    OneKind::Values back = values;
    back["k_norm"][12] -= 1;
    EXPECT_TRUE(same_bits(off(values), off(back)));  // its head is not normed
    EXPECT_FALSE(same_bits(layer_of(own, values).run(input), expected));
  }
}

// Wo is a unit matrix and the gains are 1: the mean square of every head is 1.
TEST(OutputNorm, GivesEveryHeadTheSameSize) {
  const Json settings = {{"num_heads", 2}, {"head_dim", kWidth / 2}, {"output_norm", {{"eps", 0}}}};
  OneKind::Values values = values_of(settings);
  values["o"] = testing::unit_matrix(kWidth);
  std::fill(values["o_norm"].begin(), values["o_norm"].end(), 1.0f);
  const KindInput input = random_input(kRows, kWidth, 7);
  const std::vector<float> y = layer_of(settings, values).run(input);
  for (std::size_t head = 0; head < y.size(); head += kWidth / 2) {
    double squares = 0;
    for (std::size_t c = head; c < head + kWidth / 2; ++c) squares += double{y[c]} * double{y[c]};
    ASSERT_NEAR(squares / (kWidth / 2), 1, 4 * kEps);
  }
  // It stands before the gate: a gate of 1/2 halves what it made.
  const Json gated = with(settings, "gate", "sigmoid");
  values["gate"].assign(kWidth * kWidth, 0.0f);
  std::vector<float> halves = y;
  for (float& value : halves) value *= 0.5f;
  EXPECT_TRUE(same_bits(layer_of(gated, values).run(input), halves));
}

}  // namespace
}  // namespace plait
