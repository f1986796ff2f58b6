#include <gtest/gtest.h>

#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

TEST(Scale, IsOneRoundedProduct) {
  Surroundings s;
  s.width = 45;
  const auto input = testing::random_input(37, 45, 1);
  for (const double factor : {0.3, 1.0, -2.0, 0.0}) {
    const OneKind scale("scale", {{"factor", factor}}, s, {});
    std::vector<float> expected;
    for (const float x : input.inputs[0]) expected.push_back(static_cast<float>(factor) * x);
    EXPECT_TRUE(same_bits(scale.run(input), expected)) << factor;
    const std::vector<double> twin = scale.twin(input);
    for (std::size_t i = 0; i < twin.size(); ++i) EXPECT_EQ(twin[i], factor * double{input.inputs[0][i]});
  }
}

TEST(Scale, RefusesToGuessItsFactor) {
  Surroundings s;
  s.width = 4;
  EXPECT_THROW(OneKind("scale", Json::object(), s, {}), Error);
}

}  // namespace
}  // namespace plait
