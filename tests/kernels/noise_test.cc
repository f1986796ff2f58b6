// Normal numbers from a counter: their distribution, and that each depends on its key and index only.
#include "runtime/base/noise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing.h"

namespace plait {
namespace {

std::vector<float> numbers(std::uint64_t key, Index n) {
  std::vector<float> z(static_cast<std::size_t>(n));
  add_noise(key, 1, z.data(), n);
  return z;
}

TEST(Noise, QuantileInvertsTheDistribution) {
  for (const double p : {1e-12, 1e-6, 0.001, 0.02, 0.074, 0.076, 0.3, 0.5, 0.61, 0.926, 0.99, 0.999999}) {
    const double x = normal_quantile(p), back = 0.5 * std::erfc(-x / std::sqrt(2.0));
    // An error e of x is an error e * density of p, in units of p (or 1 - p) at most |x| + 1 times e.
    EXPECT_NEAR(back, p, 1e-6 * (1 + std::abs(x)) * (1 + std::abs(x)) * std::min(p, 1 - p)) << p;
    EXPECT_NEAR(normal_quantile(1 - p), -x, 1e-5 * (1 + std::abs(x))) << p;
  }
}

// Four moments and the tails of 4 million numbers, each within five of its standard errors (sqrt(var / n)).
TEST(Noise, IsNormal) {
  constexpr Index n = 1 << 22;
  const std::vector<float> z = numbers(noise_key({1, 2}), n);
  double sums[5] = {}, beyond_2 = 0, beyond_4 = 0;
  for (const float x : z) {
    double power = 1;
    for (double& sum : sums) sum += power, power *= static_cast<double>(x);
    beyond_2 += std::abs(x) > 2 ? 1 : 0;
    beyond_4 += std::abs(x) > 4 ? 1 : 0;
  }
  const double size = n, root = std::sqrt(size);
  EXPECT_NEAR(sums[1] / size, 0, 5 / root);
  EXPECT_NEAR(sums[2] / size, 1, 5 * std::sqrt(2.0) / root);
  EXPECT_NEAR(sums[3] / size, 0, 5 * std::sqrt(15.0) / root);
  EXPECT_NEAR(sums[4] / size, 3, 5 * std::sqrt(96.0) / root);
  const double p2 = std::erfc(2 / std::sqrt(2.0)), p4 = std::erfc(4 / std::sqrt(2.0));
  EXPECT_NEAR(beyond_2 / size, p2, 5 * std::sqrt(p2) / root);
  EXPECT_NEAR(beyond_4 / size, p4, 5 * std::sqrt(p4) / root);
}

TEST(Noise, DependsOnKeyAndIndexOnly) {
  const std::uint64_t key = noise_key({3, 0, 5});
  const std::vector<float> all = numbers(key, 100);
  EXPECT_TRUE(testing::same_bits(numbers(key, 40), std::span(all).first(40)));
  EXPECT_NE(key, noise_key({3, 5, 0}));
  double product = 0;  // neighbouring keys: uncorrelated, five standard errors
  const std::vector<float> a = numbers(noise_key({7, 0}), 10000), b = numbers(noise_key({7, 1}), 10000);
  for (std::size_t i = 0; i < a.size(); ++i) product += static_cast<double>(a[i] * b[i]);
  EXPECT_NEAR(product / 10000, 0, 0.05);
}

}  // namespace
}  // namespace plait
