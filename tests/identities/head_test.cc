#include <gtest/gtest.h>

#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::OneKind;
using testing::same_bits;

constexpr Index kRows = 17, kWidth = 45, kVocab = 97;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  s.vocab = kVocab;
  return s;
}

OneKind head(const Json& settings, double size = 1) {
  auto values = OneKind::random_values("head", settings, surroundings(), 2);
  for (float& w : values["weight"]) w *= static_cast<float>(size);
  return OneKind("head", settings, surroundings(), values);
}

TEST(Head, MeetsItsTwin) {
  const auto input = testing::random_input(kRows, kWidth, 1);
  for (const Json& settings : {Json::object(), Json{{"multiplier", 0.3}}, Json{{"softcap", 2.0}},
                               Json{{"multiplier", 3.3}, {"softcap", 1.7}}}) {
    const OneKind layer = head(settings);
    EXPECT_EQ(layer.output_width(), kVocab);
    testing::expect_near(layer.run(input), layer.twin(input), 4, kWidth);
  }
}

TEST(Head, AnySplitAndThreadCount) {
  const auto input = testing::random_input(kRows, kWidth, 3);
  const OneKind layer = head({{"multiplier", 0.3}, {"softcap", 2.0}});
  const std::vector<float> whole = layer.run(input);
  for (const int threads : {1, 3})
    EXPECT_TRUE(same_bits(layer.run(input, {.split = {1, 6}, .compute = {.threads = threads}}), whole));
}

// The cap bounds every logit, keeps their order, and is the identity to third order where logits are small:
// c tanh(z / c) = z - z^3 / (3 c^2) + ...
TEST(Head, SoftcapBoundsAndKeepsOrder) {
  const auto input = testing::random_input(kRows, kWidth, 4);
  const std::vector<float> capped = head({{"softcap", 2.0}}, 10).run(input), plain = head({}, 10).run(input);
  for (std::size_t i = 0; i < capped.size(); ++i) {
    EXPECT_LE(std::abs(capped[i]), 2.0f);
    for (std::size_t j = 0; j < i % 5; ++j)
      EXPECT_FALSE(plain[i] < plain[j] && capped[i] > capped[j]) << plain[i] << " " << plain[j];
  }
  const std::vector<float> small = head({{"softcap", 1000.0}}).run(input), same = head({}).run(input);
  for (std::size_t i = 0; i < small.size(); ++i) {
    const double third = std::pow(std::abs(same[i]), 3) / (3 * 1000.0 * 1000.0);
    EXPECT_NEAR(small[i], same[i], third + 8 * testing::kEps * std::abs(same[i]));
  }
}

TEST(Head, RefusesANegativeCap) {
  EXPECT_THROW(OneKind::random_values("head", {{"softcap", -1}}, surroundings(), 1), Error);
}

}  // namespace
}  // namespace plait
