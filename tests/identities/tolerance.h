// Bounds of f32 against double, derived: c * eps * sqrt(n) for n terms whose rounding errors have random
// signs.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>

#include "tests/testing.h"

namespace plait::testing {

inline constexpr double kEps = std::numeric_limits<float>::epsilon();

// Largest difference relative to the largest |expected| is at most c * eps * sqrt(n).
template <class T>
void expect_near(const std::vector<T>& actual, const std::vector<double>& expected, double c, double n) {
  ASSERT_EQ(actual.size(), expected.size());
  const std::vector<double> wide(actual.begin(), actual.end());
  for (const double x : wide) ASSERT_TRUE(std::isfinite(x));
  EXPECT_LE(relative_error(wide, expected), c * kEps * std::sqrt(n));
}

}  // namespace plait::testing
