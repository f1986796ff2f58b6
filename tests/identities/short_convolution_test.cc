#include <gtest/gtest.h>

#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

constexpr Index kRows = 150, kWidth = 45;  // past a page of the log

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

Edit conv_edit(Operator op) {
  Edit edit;
  edit.node = "tested";
  edit.site = Site::conv;
  edit.op = op;
  return edit;
}

TEST(ShortConvolution, MeetsItsTwin) {
  const auto input = testing::random_input(kRows, kWidth, 1);
  for (const Index kernel : {1, 2, 4, 7})
    for (const char* activation : {"none", "silu"}) {
      const Json settings = {{"kernel", kernel}, {"activation", activation}, {"bias", kernel != 2}};
      const OneKind layer("short_convolution", settings, surroundings(),
                          OneKind::random_values("short_convolution", settings, surroundings(), 2));
      testing::expect_near(layer.run(input), layer.twin(input), 2, static_cast<double>(kernel + 1));
    }
}

TEST(ShortConvolution, AnySplit) {
  const auto input = testing::random_input(kRows, kWidth, 3);
  for (const Index kernel : {1, 2, 4, 7}) {
    const Json settings = {{"kernel", kernel}, {"activation", "silu"}};
    const OneKind layer("short_convolution", settings, surroundings(),
                        OneKind::random_values("short_convolution", settings, surroundings(), 4));
    const std::vector<float> whole = layer.run(input);
    for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {2}, {3, 1}, {64}, {65, 2}})
      EXPECT_TRUE(same_bits(layer.run(input, {.split = split}), whole))
          << kernel << " taps, split " << split[0];
  }
}

// Taps 0, ..., 0, 1 copy the current token; 1, 0, ..., 0 give the token kernel - 1 ago, nothing before the
// start.
TEST(ShortConvolution, SingleTapsShift) {
  const auto input = testing::random_input(kRows, kWidth, 5);
  for (Index tap = 0; tap < 4; ++tap) {
    std::vector<float> weight(kWidth * 4);
    for (Index c = 0; c < kWidth; ++c) weight[static_cast<std::size_t>(c * 4 + tap)] = 1;
    const OneKind layer("short_convolution", {}, surroundings(), {{"weight", weight}});
    std::vector<double> shifted(static_cast<std::size_t>((3 - tap) * kWidth));
    shifted.insert(shifted.end(), input.inputs[0].begin(), input.inputs[0].end() - (3 - tap) * kWidth);
    testing::expect_near(layer.run(input), shifted, 0, 1);
  }
}

TEST(ShortConvolution, CurrentTapIsTheLastTapAlone) {
  const auto input = testing::random_input(kRows, kWidth, 6);
  const Json settings = {{"kernel", 3}, {"bias", true}, {"activation", "silu"}};
  auto values = OneKind::random_values("short_convolution", settings, surroundings(), 7);
  const OneKind layer("short_convolution", settings, surroundings(), values);
  for (Index c = 0; c < kWidth; ++c)
    for (Index w = 0; w < 2; ++w) values["weight"][static_cast<std::size_t>(c * 3 + w)] = 0;
  const OneKind alone("short_convolution", settings, surroundings(), values);
  testing::expect_near(layer.run(input, {.edits = {conv_edit(Operator::current_tap)}}), alone.twin(input), 2,
                       4);
}

TEST(ShortConvolution, IdentityPassesTheInputToTheActivation) {
  const auto input = testing::random_input(kRows, kWidth, 8);
  const auto values = OneKind::random_values("short_convolution", {{"bias", true}}, surroundings(), 9);
  const OneKind layer("short_convolution", {{"bias", true}}, surroundings(), values);
  EXPECT_TRUE(same_bits(layer.run(input, {.edits = {conv_edit(Operator::identity)}}), input.inputs[0]));
  const OneKind silu("short_convolution", {{"bias", true}, {"activation", "silu"}}, surroundings(), values);
  std::vector<double> expected;
  for (const float x : input.inputs[0]) expected.push_back(x / (1 + std::exp(-double{x})));
  testing::expect_near(silu.run(input, {.edits = {conv_edit(Operator::identity)}}), expected, 2, 1);
  Edit bypass = conv_edit(Operator::identity);
  bypass.drop_activation = true;
  EXPECT_TRUE(same_bits(silu.run(input, {.edits = {bypass}}), input.inputs[0]));
}

}  // namespace
}  // namespace plait
