// Degrees of freedom of kernels: arXiv 2507.03340, softmax-family.md 2.14.
#include "tools/probe/degrees_of_freedom.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "runtime/base/error.h"

namespace plait::probe {
namespace {

constexpr double kErrors = 5;  // standard errors

TEST(DegreesOfFreedom, OfKernelsWithKnownSpectra) {
  // Equal vectors: one eigenvalue J e^(scale |x|^2), the others 0.
  const double c = std::exp(0.5 * 5);
  EXPECT_NEAR(degrees_of_freedom(gram_eigenvalues({1, 2, 1, 2, 1, 2}, 3, 0.5), 0.7), 3 * c / (3 * c + 0.7),
              1e-13);
  // x and -x: e^u +- e^-u.
  const std::vector<double> pair = gram_eigenvalues({0.8, -0.8}, 2, 1);
  EXPECT_NEAR(pair[0], 2 * std::sinh(0.64), 1e-14);
  EXPECT_NEAR(pair[1], 2 * std::cosh(0.64), 1e-14);
  // Orthogonal rows of length r: (e^(r^2) - 1) I + 1 1'.
  const std::vector<double> three = gram_eigenvalues({2, 0, 0, 0, 2, 0, 0, 0, 2}, 3, 0.25);
  EXPECT_NEAR(three[0], std::exp(1) - 1, 1e-14);
  EXPECT_NEAR(three[1], std::exp(1) - 1, 1e-14);
  EXPECT_NEAR(three[2], std::exp(1) + 2, 1e-14);
}

TEST(DegreesOfFreedom, FallWithTheRidgeFromTheRankToNothing) {
  const std::vector<double> eigenvalues = {0.1, 1, 10};
  double before = 3;
  for (int power = -40; power <= 40; ++power) {
    const double dof = degrees_of_freedom(eigenvalues, std::exp2(power));
    EXPECT_LT(dof, before);
    before = dof;
  }
  EXPECT_NEAR(degrees_of_freedom(eigenvalues, 1e-14), 3, 1e-12);
  EXPECT_NEAR(degrees_of_freedom(eigenvalues, 1), 0.1 / 1.1 + 0.5 + 10.0 / 11, 1e-15);
}

// With 1 / J in front, G is the kernel's integral operator on the vectors' law. For exp(x y) and N(0, v) its
// spectrum A r^k is geometric (Mehler): its sum E e^(x^2) = (1 - 2v)^-1/2 and its squares' sum E e^(2xy) =
// (1 - 4v^2)^-1/2 give A and r. v = .1: at v >= 1/4 e^(x^2) has no variance, and J vectors say little.
TEST(DegreesOfFreedom, ScaledByTheirCountAreThoseOfTheOperator) {
  constexpr Index kVectors = 150;
  constexpr double kLambda = 0.0625, kVariance = 0.1;
  const double ratio = std::sqrt((1 + 2 * kVariance) / (1 - 2 * kVariance));  // (1 + r) / (1 - r)
  const double r = (ratio - 1) / (ratio + 1), first = (1 - r) / std::sqrt(1 - 2 * kVariance);
  double expected = 0;
  for (int k = 0; k < 40; ++k) {
    const double mu = first * std::pow(r, k);
    expected += mu / (mu + kLambda);
  }
  const Estimate dof = average({400, 60}, 1, [](Source& source, double* values) {
    std::vector<double> x(kVectors);
    for (double& value : x) value = std::sqrt(kVariance) * source.normal();
    std::vector<double> eigenvalues = gram_eigenvalues(x, kVectors, 1);
    for (double& mu : eigenvalues) mu /= kVectors;
    values[0] = degrees_of_freedom(eigenvalues, kLambda);
  })[0];
  // A spectrum from J vectors is off by O(1 / J): three eigenvalues are not far below lambda.
  EXPECT_NEAR(dof.mean(), expected, kErrors * dof.error() + 3.0 / kVectors);
  EXPECT_LT(dof.error(), 0.01);
}

// The paper's counts for GPT-2 (C = 64) are shares of their mean: taken as degrees of freedom they come back,
// and their mean is C up to the rounding of twelve numbers.
TEST(DegreesOfFreedom, SharesOutFeatures) {
  const std::vector<double> published = {130, 182, 35, 44, 42, 65, 92, 33, 28, 34, 46, 39};
  const double mean = std::accumulate(published.begin(), published.end(), 0.0) / 12;
  EXPECT_NEAR(mean, 64, 0.5);
  const std::vector<Index> counts = feature_counts(published, mean);
  for (std::size_t s = 0; s < counts.size(); ++s) EXPECT_EQ(static_cast<double>(counts[s]), published[s]);
  EXPECT_EQ(feature_counts({1, 3}, 10), (std::vector<Index>{5, 15}));
  EXPECT_EQ(feature_counts({1e-6, 2}, 2), (std::vector<Index>{1, 4}));  // no layer without features
}

TEST(DegreesOfFreedom, RefuseWhatOverflows) { EXPECT_THROW(gram_eigenvalues({30, 1}, 2, 1), Error); }

}  // namespace
}  // namespace plait::probe
