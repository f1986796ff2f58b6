#include "tools/probe/attention_thermodynamics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/testing.h"

namespace plait::probe {
namespace {

std::vector<double> random_logits(int seed, int n) {
  testing::Numbers numbers(static_cast<std::uint64_t>(seed));
  std::vector<double> logits;
  for (int j = 0; j < n; ++j) logits.push_back(3 * numbers.normal());
  return logits;
}

// From the definitions, in plain loops.
Thermodynamics by_definition(const std::vector<double>& logits, double kt) {
  double z = 0, lse = 0, u = 0, square = 0, s = 0;
  for (const double x : logits) z += std::exp(x);
  lse = std::log(z);
  for (const double x : logits) {
    const double p = std::exp(x) / z, e = -kt * x;
    u += p * e;
    square += p * e * e;
    s -= p * std::log(p);
  }
  return {-kt * lse, u, s, (square - u * u) / (kt * kt)};
}

TEST(AttentionThermodynamics, AreTheDefinitions) {
  for (const double kt : {1.0, 8.0, 0.3}) {
    const auto logits = random_logits(3, 50);
    const Thermodynamics t = thermodynamics(logits, kt), expected = by_definition(logits, kt);
    EXPECT_NEAR(t.free_energy, expected.free_energy, 1e-12 * kt);
    EXPECT_NEAR(t.energy, expected.energy, 1e-12 * kt);
    EXPECT_NEAR(t.entropy, expected.entropy, 1e-12);
    EXPECT_NEAR(t.heat_capacity, expected.heat_capacity, 1e-11);
  }
}

// softmax-family.md 4.6: F = U - kT S, at every temperature.
TEST(AttentionThermodynamics, FreeEnergyIsEnergyLessHeat) {
  for (const double relative : {0.01, 0.5, 1.0, 7.0, 1000.0}) {
    const Thermodynamics t = thermodynamics(random_logits(4, 30), 2.5, relative);
    EXPECT_NEAR(t.free_energy, t.energy - 2.5 * relative * t.entropy, 1e-12 * (1 + std::abs(t.free_energy)));
  }
}

// Two levels a gap apart (Schottky): x tanh(x / 2) = 2 gives the largest heat capacity, x^2 / 4 - 1 = 0.4392
// at gap / kT = 2.3994.
TEST(AttentionThermodynamics, TwoLevelsHaveTheSchottkyPeak) {
  double best = 0, at = 0;
  for (double x = 1; x < 5; x += 1e-4) {
    const double c = thermodynamics(std::vector<double>{0, -x}, 1).heat_capacity;
    if (c > best) best = c, at = x;
  }
  EXPECT_NEAR(at, 2.3994, 2e-4);
  EXPECT_NEAR(best, 0.43923, 1e-5);
  EXPECT_NEAR(best, at * at / 4 - 1, 1e-4);
}

TEST(AttentionThermodynamics, EqualLogitsHaveNoCapacityAndAllTheEntropy) {
  const Thermodynamics t = thermodynamics(std::vector<double>(12, -4.5), 3);
  EXPECT_NEAR(t.entropy, std::log(12), 1e-14);
  EXPECT_NEAR(t.heat_capacity, 0, 1e-14);
  EXPECT_NEAR(t.energy, 13.5, 1e-13);
}

// S = -dF/dT and C = T dS/dT, by central differences.
TEST(AttentionThermodynamics, EntropyAndCapacityAreDerivatives) {
  const auto logits = random_logits(5, 20);
  const double kt = 4, h = 1e-5;
  for (const double relative : {0.5, 1.0, 3.0}) {
    const Thermodynamics t = thermodynamics(logits, kt, relative),
                         above = thermodynamics(logits, kt, relative + h),
                         below = thermodynamics(logits, kt, relative - h);
    EXPECT_NEAR(-(above.free_energy - below.free_energy) / (2 * h * kt), t.entropy, 1e-8);
    EXPECT_NEAR(relative * (above.entropy - below.entropy) / (2 * h), t.heat_capacity, 1e-8);
  }
}

TEST(AttentionThermodynamics, ExtremeLogitsAndKeysOutOfReach) {
  const double never = -std::numeric_limits<double>::infinity();
  const Thermodynamics t = thermodynamics(std::vector<double>{never, 1e4, -1e4}, 2);
  EXPECT_EQ(t.entropy, 0);
  EXPECT_EQ(t.heat_capacity, 0);
  EXPECT_EQ(t.free_energy, -2e4);
}

}  // namespace
}  // namespace plait::probe
