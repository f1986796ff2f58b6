#include <gtest/gtest.h>

#include "layers/blocks/norm_scale.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

constexpr Index kRows = 21, kWidth = 45;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

TEST(LayerNorm, MeetsItsTwin) {
  const auto input = testing::random_input(kRows, kWidth, 1);
  for (const bool bias : {true, false}) {
    const Json settings = {{"bias", bias}};
    const OneKind norm("layer_norm", settings, surroundings(),
                       OneKind::random_values("layer_norm", settings, surroundings(), 2));
    testing::expect_near(norm.run(input), norm.twin(input), 6, kWidth);
  }
}

TEST(LayerNorm, NoBiasIsABiasOfZero) {
  const auto input = testing::random_input(kRows, kWidth, 3);
  auto values = OneKind::random_values("layer_norm", {{"bias", false}}, surroundings(), 4);
  const OneKind without("layer_norm", {{"bias", false}}, surroundings(), values);
  values["bias"] = std::vector<float>(kWidth, 0.0f);
  const OneKind with("layer_norm", {}, surroundings(), values);
  testing::expect_near(without.run(input), testing::widen(with.run(input)), 0, 1);
}

// Of a row without mean, layer norm and RMS norm are the same function.
TEST(LayerNorm, OfACentredRowIsRmsNorm) {
  auto input = testing::random_input(kRows, kWidth - 1, 5);
  std::vector<float> centred;  // x, -x pairs and one zero: the mean is 0 in any order of summation
  for (Index r = 0; r < kRows; ++r) {
    for (Index c = 0; c < kWidth / 2; ++c) {
      const float x = input.inputs[0][static_cast<std::size_t>(r * (kWidth - 1) + c)];
      centred.insert(centred.end(), {x, -x});
    }
    centred.push_back(0);
  }
  input.inputs[0] = centred;
  const auto values = OneKind::random_values("rms_norm", {}, surroundings(), 6);
  const OneKind rms("rms_norm", {{"eps", 1e-5}}, surroundings(), values);
  const OneKind layer("layer_norm", {{"bias", false}}, surroundings(), values);
  testing::expect_near(layer.run(input), rms.twin(input), 6, kWidth);
  testing::expect_near(layer.twin(input), rms.twin(input), 1e-6, kWidth);
}

// Small integers shift without rounding; the mean of 45 of them rounds, hence the bound.
TEST(LayerNorm, ForgetsAConstantAddedToTheRow) {
  auto input = testing::random_input(kRows, kWidth, 7);
  for (float& x : input.inputs[0]) x = std::round(x * 16);
  const OneKind norm("layer_norm", {}, surroundings(),
                     OneKind::random_values("layer_norm", {}, surroundings(), 8));
  const auto expected = norm.twin(input);
  for (float& x : input.inputs[0]) x += 64;
  testing::expect_near(norm.run(input), expected, 16, kWidth);
}

// The row's own scale changes no bit; twice the scale twice what stands before the gain.
TEST(LayerNorm, FrozenScale) {
  const auto input = testing::random_input(kRows, kWidth, 8);
  const OneKind norm("layer_norm", {}, surroundings(),
                     OneKind::random_values("layer_norm", {}, surroundings(), 9));
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
  const auto values = OneKind::random_values("layer_norm", {}, surroundings(), 9);
  for (std::size_t i = 0; i < expected.size(); ++i)
    expected[i] = 2 * expected[i] - static_cast<double>(values.at("bias")[i % kWidth]);
  testing::expect_near(doubled, expected, 4, 1);
  freeze.values.pop_back();
  EXPECT_THROW(norm.run(input, {.edits = {freeze}}), Error);
}

}  // namespace
}  // namespace plait
