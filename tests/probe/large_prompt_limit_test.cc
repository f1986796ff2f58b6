// Softmax over many normal tokens: arXiv 2512.11784, softmax-family.md 2.18.
#include "tools/probe/large_prompt_limit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace plait::probe {
namespace {

constexpr double kErrors = 5;  // standard errors

// d = 4, |a| = .81, as in the numbers TESTED there.
GaussianPrompt published() { return {{1, 1, 1, 1}, {.405, .405, .405, .405}}; }

// Mean errors of .268, .0925, .0328, .0094 at L = 1e2 .. 1e5. Over how many prompts is not stated: taken as
// one each, whose error spreads by some 0.36 of its mean (a normal in four dimensions), so that 0.6 of the
// mean is less than two spreads. Sharper: err sqrt L is "near 3", and the law below.
TEST(LargePromptLimit, ErrorsAreThePublishedOnes) {
  const double errors[] = {.268, .0925, .0328, .0094};
  const Index lengths[] = {100, 1000, 10000, 100000};
  for (int i = 0; i < 4; ++i) {
    const PromptError error = prompt_error(published(), lengths[i], {i < 3 ? 200 : 60, 50});
    EXPECT_NEAR(error.norm.mean() / errors[i], 1, 0.25) << lengths[i];
    const double scaled = error.norm.mean() * std::sqrt(static_cast<double>(lengths[i]));
    EXPECT_GT(scaled, 2.5);
    EXPECT_LT(scaled, 3.1);
  }
}

// L E |err|^2 -> e^(a' Sigma a) (tr Sigma + a' Sigma^2 a), by the delta method; its next term is O(1 / L), a
// few times e^(a' Sigma a) / L of it.
TEST(LargePromptLimit, ErrorHasTheDerivedConstant) {
  const GaussianPrompt prompts[] = {published(), {{2, 0.5, 0.1}, {0.3, -0.8, 1}}, {{1, 1}, {0, 0}}};
  constexpr Index kLength = 1000;
  for (const GaussianPrompt& prompt : prompts) {
    const PromptError error = prompt_error(prompt, kLength, {1000, 51});
    const double measured = error.square.mean() * kLength, limit = limit_square(prompt);
    EXPECT_NEAR(measured / limit, 1, kErrors * error.square.error() * kLength / limit + 20.0 / kLength);
  }
  EXPECT_NEAR(limit_square(published()), std::exp(0.6561) * 4.6561, 1e-12);
  EXPECT_NEAR(limit_square(prompts[2]), 2, 1e-15);  // equal weights: the variance of a mean
}

// Of a head: with values that are linear in normal keys, the surrogate meets the softmax as keys grow in
// number, and the mean alone does not.
TEST(LargePromptLimit, SurrogateOfAHeadIsItsLimit) {
  constexpr Index kKeys = 200000;
  Source source(52, 0);
  std::vector<double> logits, weights, x;
  std::vector<const double*> values;
  double mass = 0;
  for (Index j = 0; j < kKeys; ++j) {
    const double a = source.normal(), b = source.normal();
    x.insert(x.end(), {1 + a, 2 * a - b});
    logits.push_back(7 + 0.6 * a);
    mass += std::exp(0.6 * a);
  }
  for (Index j = 0; j < kKeys; ++j) {
    values.push_back(x.data() + 2 * j);
    weights.push_back(std::exp(logits[static_cast<std::size_t>(j)] - 7) / mass);
  }
  const SurrogateRow row = surrogate_row(weights, logits, values, 2);
  const double limit[2] = {1.6, 1.2}, mean[2] = {1, 0};  // mu + cov(v, s)
  // Each is a mean over 2e5 keys of products with deviations below 5: 0.01 a standard error, five of them.
  for (int c = 0; c < 2; ++c) {
    EXPECT_NEAR(row.output[static_cast<std::size_t>(c)], limit[c], 0.05);
    EXPECT_NEAR(row.surrogate[static_cast<std::size_t>(c)], limit[c], 0.05);
    EXPECT_NEAR(row.mean[static_cast<std::size_t>(c)], mean[c], 0.05);
  }
  // Two keys with their exact covariance by hand.
  const double first = 3, second = 5;
  const SurrogateRow two = surrogate_row({0.25, 0.75}, {0, 1}, {&first, &second}, 1);
  EXPECT_DOUBLE_EQ(two.output[0], 4.5);
  EXPECT_DOUBLE_EQ(two.mean[0], 4);
  EXPECT_DOUBLE_EQ(two.surrogate[0], 4.5);  // 4 + ((-1)(-0.5) + (1)(0.5)) / 2
  // A key that pruning left out is no key.
  const double far = 100;
  const SurrogateRow pruned = surrogate_row({0, 0.25, 0.75}, {-HUGE_VAL, 0, 1}, {&far, &first, &second}, 1);
  EXPECT_DOUBLE_EQ(pruned.output[0], 4.5);
  EXPECT_DOUBLE_EQ(pruned.mean[0], 4);
  EXPECT_DOUBLE_EQ(pruned.surrogate[0], 4.5);
}

}  // namespace
}  // namespace plait::probe
