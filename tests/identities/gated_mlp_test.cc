#include <gtest/gtest.h>

#include "runtime/base/half.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

constexpr Index kRows = 19, kWidth = 44, kHidden = 70;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

// Two products in a row and an activation whose slope is at most 1.13: errors grow like sqrt(width) +
// sqrt(hidden).
TEST(GatedMlp, MeetsItsTwin) {
  const auto input = testing::random_input(kRows, kWidth, 1);
  for (const char* activation : {"silu", "gelu_tanh", "gelu", "relu"})
    for (const bool bias : {false, true}) {
      const Json settings = {{"hidden", kHidden},
                             {"activation", activation},
                             {"bias", bias},
                             {"gate_multiplier", 0.7},
                             {"down_multiplier", 1.9}};
      const OneKind mlp("gated_mlp", settings, surroundings(),
                        OneKind::random_values("gated_mlp", settings, surroundings(), 2));
      testing::expect_near(mlp.run(input), mlp.twin(input), 4, kWidth + kHidden);
    }
}

TEST(GatedMlp, AnySplitAndThreadCount) {
  const auto input = testing::random_input(kRows, kWidth, 3);
  const Json settings = {{"hidden", kHidden}, {"bias", true}, {"gate_multiplier", 0.7}};
  const OneKind mlp("gated_mlp", settings, surroundings(),
                    OneKind::random_values("gated_mlp", settings, surroundings(), 4));
  const std::vector<float> whole = mlp.run(input);
  for (const Index split : {1, 4, 13})
    for (const int threads : {1, 2, 3})
      EXPECT_TRUE(same_bits(mlp.run(input, {.split = {split}, .compute = {.threads = threads}}), whole))
          << split << " rows, " << threads << " threads";
}

// Without a gate that varies the layer is linear: gate rows of zero and a bias of 1 under relu leave
// down(up(x)).
TEST(GatedMlp, AnOpenGateLeavesTwoProducts) {
  const auto input = testing::random_input(kRows, kWidth, 5);
  const Json settings = {{"hidden", kHidden}, {"activation", "relu"}, {"bias", true}};
  auto values = OneKind::random_values("gated_mlp", settings, surroundings(), 6);
  values["gate"].assign(values["gate"].size(), 0);
  values["gate_bias"].assign(kHidden, 1);
  values["up_bias"].assign(kHidden, 0);
  values["down_bias"].assign(kWidth, 0);
  const OneKind mlp("gated_mlp", settings, surroundings(), values);
  std::vector<double> expected(static_cast<std::size_t>(kRows * kWidth));
  for (Index r = 0; r < kRows; ++r)
    for (Index h = 0; h < kHidden; ++h) {
      double up = 0;
      for (Index i = 0; i < kWidth; ++i)
        up += double{values["up"][static_cast<std::size_t>(h * kWidth + i)]} *
              input.inputs[0][static_cast<std::size_t>(r * kWidth + i)];
      for (Index c = 0; c < kWidth; ++c)
        expected[static_cast<std::size_t>(r * kWidth + c)] +=
            values["down"][static_cast<std::size_t>(c * kHidden + h)] * up;
    }
  testing::expect_near(mlp.run(input), expected, 4, kWidth + kHidden);
  testing::expect_near(mlp.twin(input), expected, 1e-6, kWidth + kHidden);
}

// A multiplier is the same as scaled weights; powers of two make it the same bits.
TEST(GatedMlp, MultipliersFoldIntoTheWeights) {
  const auto input = testing::random_input(kRows, kWidth, 7);
  auto values = OneKind::random_values("gated_mlp", {{"hidden", kHidden}}, surroundings(), 8);
  const OneKind multiplied("gated_mlp",
                           {{"hidden", kHidden}, {"gate_multiplier", 0.25}, {"down_multiplier", 4}},
                           surroundings(), values);
  for (float& w : values["gate"]) w *= 0.25f;
  for (float& w : values["down"]) w *= 4;
  const OneKind folded("gated_mlp", {{"hidden", kHidden}}, surroundings(), values);
  EXPECT_TRUE(same_bits(multiplied.run(input), folded.run(input)));
}

// bf16 weights in exact mode are an f32 model of the same values, bit for bit.
TEST(GatedMlp, ExactOnNarrowWeightsIsTheWideModel) {
  const auto input = testing::random_input(kRows, kWidth, 9);
  auto values = OneKind::random_values("gated_mlp", {{"hidden", kHidden}}, surroundings(), 10);
  for (auto& [name, tensor] : values)
    for (float& w : tensor) w = to_float(to_bf16(w));
  const OneKind wide("gated_mlp", {{"hidden", kHidden}}, surroundings(), values, DType::f32);
  const OneKind narrow("gated_mlp", {{"hidden", kHidden}}, surroundings(), values, DType::bf16);
  EXPECT_TRUE(same_bits(narrow.run(input), wide.run(input)));
}

}  // namespace
}  // namespace plait
