// One raised logit among equal ones: softmax-family.md 2.9, whose numbers are derived.
#include "tools/probe/peak_separation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace plait::probe {
namespace {

std::unique_ptr<NormaliserTwin> softmax() { return make_twin(NormaliserOption(Softmax{}), Parameters{}); }

TEST(PeakSeparation, WeightsAreTheirClosedForms) {
  for (const Index n : {2, 10, 1000})
    for (const double gap : {0.5, 3.0, 12.0}) {
      const double rest = static_cast<double>(n - 1), flat = 1 / static_cast<double>(n);
      // Sums of n positive terms: n eps relative at most.
      const double slack = static_cast<double>(n) * 1e-15;
      const double by_exp = 1 / (1 + rest * std::exp(-gap));
      const Peak exp = peak_of(*softmax(), n, gap);
      EXPECT_NEAR(exp.weight / by_exp, 1, slack);
      EXPECT_NEAR(exp.separation, by_exp - flat, slack);
      for (const double p : {1.0, 2.0, 3.0}) {
        const double raised = std::pow(1 + gap, p), by_power = raised / (raised + rest);
        const Peak power = peak_of(*power_weights(p), n, gap);
        EXPECT_NEAR(power.weight / by_power, 1, slack);
        EXPECT_NEAR(power.separation, by_power - flat, slack);
      }
    }
}

TEST(PeakSeparation, GapsForAHalf) {
  for (const Index n : {16, 1024, 4096}) {
    const double rest = static_cast<double>(n - 1);
    // The bisection stops at 1e-9 of the gap; sums of n terms move the weight by n eps.
    EXPECT_NEAR(half_gap(*softmax(), n) / std::log(rest), 1, 2e-9);
    for (const double p : {1.0, 2.0, 3.0})
      EXPECT_NEAR(half_gap(*power_weights(p), n) / (std::pow(rest, 1 / p) - 1), 1, 2e-9);
    EXPECT_NEAR(peak_of(*softmax(), n, std::log(rest)).weight, 0.5, 1e-12);
  }
}

// Linear attention separates by at most D / n, so at the gap where softmax gives a half it goes to nothing;
// the weight of softmax goes to one as D - ln n grows.
TEST(PeakSeparation, OnlyExpKeepsUpWithTheLength) {
  double before = 1;
  for (const Index n : {16, 256, 4096, 65536}) {
    const double gap = std::log(static_cast<double>(n - 1));
    const double linear = peak_of(*power_weights(1), n, gap).separation;
    EXPECT_LT(linear, gap / static_cast<double>(n));
    EXPECT_GT(linear, 0.4 * gap / static_cast<double>(n));
    EXPECT_LT(linear, before / 5);  // n grows sixteenfold, D by less than threefold
    before = linear;
    EXPECT_GT(peak_of(*softmax(), n, gap).separation, 0.5 - 1 / static_cast<double>(n) - 1e-12);
    EXPECT_GT(peak_of(*softmax(), n, gap + 10).weight, 0.9999);
  }
}

// Weights that do not depend on the logits never give a half.
TEST(PeakSeparation, SaysWhereNoGapIsEnough) {
  EXPECT_EQ(half_gap(*power_weights(0), 16), std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace plait::probe
