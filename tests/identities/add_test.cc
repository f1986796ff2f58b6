#include <gtest/gtest.h>

#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

constexpr Index kRows = 37, kWidth = 45;

OneKind add(const Json& settings, Index ports) {
  Surroundings s;
  s.width = kWidth;
  s.inputs = ports;
  return OneKind("add", settings, s, {});
}

TEST(Add, SumsInPortOrder) {
  const auto input = testing::random_input(kRows, kWidth, 1, 3);
  std::vector<float> expected;
  for (std::size_t i = 0; i < input.inputs[0].size(); ++i)
    expected.push_back((input.inputs[0][i] + input.inputs[1][i]) + input.inputs[2][i]);
  EXPECT_TRUE(same_bits(add({}, 3).run(input), expected));
  EXPECT_TRUE(same_bits(add({}, 3).run(input, {.split = {1, 9}, .compute = {.threads = 3}}), expected));
}

TEST(Add, ScalesAreFusedMultiplyAdds) {
  const auto input = testing::random_input(kRows, kWidth, 2, 3);
  const OneKind layer = add({{"scales", {0.3, 1, 1.7}}}, 3);
  std::vector<float> expected;
  for (std::size_t i = 0; i < input.inputs[0].size(); ++i)
    expected.push_back(std::fma(1.7f, input.inputs[2][i], 0.3f * input.inputs[0][i] + input.inputs[1][i]));
  EXPECT_TRUE(same_bits(layer.run(input), expected));
  testing::expect_near(layer.run(input), layer.twin(input), 2, 3);
}

// What an ablation relies on: the residual passes a silenced block untouched, and one port is a copy.
TEST(Add, AZeroContributionLeavesTheResidual) {
  auto input = testing::random_input(kRows, kWidth, 3, 2);
  input.inputs[1].assign(input.inputs[1].size(), 0);
  EXPECT_TRUE(same_bits(add({}, 2).run(input), input.inputs[0]));
  EXPECT_TRUE(same_bits(add({{"scales", {1, 0.4}}}, 2).run(input), input.inputs[0]));
  EXPECT_TRUE(same_bits(add({}, 1).run(input), input.inputs[0]));
}

TEST(Add, RefusesScalesThatDoNotMatchItsPorts) {
  try {
    add({{"scales", {1, 1, 1}}}, 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "node 'tested': setting 'scales' has 3 factors, but the node has 2 inputs");
  }
}

}  // namespace
}  // namespace plait
