#include <gtest/gtest.h>

#include "layers/blocks/norm_scale.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

constexpr Index kRows = 21, kWidth = 45;  // 45 is no multiple of the 16 lanes

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

TEST(RmsNorm, MeetsItsTwin) {
  const auto input = testing::random_input(kRows, kWidth, 1);
  for (const char* form : {"plain", "one_plus"}) {
    const Json settings = {{"form", form}, {"eps", 1e-5}};
    const OneKind norm("rms_norm", settings, surroundings(),
                       OneKind::random_values("rms_norm", settings, surroundings(), 2));
    testing::expect_near(norm.run(input), norm.twin(input), 4, kWidth);
  }
}

// 1 + w as a gain, written either way: f32 adds 1 once, so the bits agree.
TEST(RmsNorm, OnePlusIsPlainWithOneAdded) {
  const auto input = testing::random_input(kRows, kWidth, 3);
  auto values = OneKind::random_values("rms_norm", {}, surroundings(), 4);
  const OneKind one_plus("rms_norm", {{"form", "one_plus"}}, surroundings(), values);
  for (float& w : values["weight"]) w = 1 + w;
  const OneKind plain("rms_norm", {}, surroundings(), values);
  EXPECT_TRUE(same_bits(one_plus.run(input), plain.run(input)));
}

// Powers of two scale without rounding, so with a negligible eps a row's scale is of no consequence at all.
TEST(RmsNorm, ForgetsThePowerOfTwoOfItsInput) {
  auto input = testing::random_input(kRows, kWidth, 5);
  const OneKind norm("rms_norm", {{"eps", 1e-30}}, surroundings(),
                     OneKind::random_values("rms_norm", {}, surroundings(), 6));
  const std::vector<float> expected = norm.run(input);
  for (float& x : input.inputs[0]) x *= 256;
  EXPECT_TRUE(same_bits(norm.run(input), expected));
}

TEST(RmsNorm, UnitGainGivesUnitMeanSquare) {
  const auto input = testing::random_input(kRows, kWidth, 7);
  const OneKind norm("rms_norm", {}, surroundings(), {{"weight", std::vector<float>(kWidth, 1.0f)}});
  const std::vector<float> y = norm.run(input);
  for (Index r = 0; r < kRows; ++r) {
    double squares = 0;
    for (Index c = 0; c < kWidth; ++c) squares += std::pow(y[static_cast<std::size_t>(r * kWidth + c)], 2);
    // eps of 1e-6 beside a mean square near 1 takes away about 1e-6.
    EXPECT_NEAR(squares / kWidth, 1, 1e-5) << "row " << r;
  }
}

TEST(RmsNorm, ARowOfZerosStaysZero) {
  const OneKind norm("rms_norm", {}, surroundings(), {{"weight", std::vector<float>(kWidth, 1.0f)}});
  EXPECT_TRUE(
      same_bits(norm.run({.rows = 1, .inputs = {std::vector<float>(kWidth)}}), std::vector<float>(kWidth)));
}

TEST(RmsNorm, RefusesAnEpsThatDividesByZero) {
  EXPECT_THROW(OneKind::random_values("rms_norm", {{"eps", 0}}, surroundings(), 1), Error);
}

// The row's own scale changes no bit; twice the scale twice what stands before the gain.
TEST(RmsNorm, FrozenScale) {
  const auto input = testing::random_input(kRows, kWidth, 8);
  const OneKind norm("rms_norm", {}, surroundings(),
                     OneKind::random_values("rms_norm", {}, surroundings(), 9));
  const auto& scales = dynamic_cast<const NormScale&>(norm.layer());
  Edit freeze;
  freeze.node = "tested";
  freeze.site = Site::norm;
  freeze.op = Operator::freeze;
  for (Index r = 0; r < kRows; ++r)
    freeze.values.push_back(
        static_cast<double>(scales.scale(input.inputs[0].data() + r * kWidth, kernels())));
  const std::vector<float> plain = norm.run(input);
  EXPECT_TRUE(same_bits(norm.run(input, {.split = {4}, .edits = {freeze}}), plain));
  for (double& value : freeze.values) value *= 2;
  const std::vector<float> doubled = norm.run(input, {.edits = {freeze}});
  std::vector<double> expected = testing::widen(plain);
  for (double& y : expected) y *= 2;
  testing::expect_near(doubled, expected, 4, 1);
  freeze.values.pop_back();
  EXPECT_THROW(norm.run(input, {.edits = {freeze}}), Error);
}

}  // namespace
}  // namespace plait
