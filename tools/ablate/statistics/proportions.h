// Accuracy: intervals of a proportion, and the paired comparison of right and wrong answers. A bootstrap of
// the paired difference is that of its clusters (bootstrap.h), with items of difference -1, 0 or 1.
#pragma once

#include <span>

#include "tools/ablate/statistics/distributions.h"

namespace plait::ablate {

// Wilson's score interval (1927): holds its level on average, for display. Both throw Error unless
// 0 <= successes <= n and n >= 1.
Interval wilson_interval(Index successes, Index n, double level);
// Clopper and Pearson (1934): exact, never below its level.
Interval clopper_pearson_interval(Index successes, Index n, double level);

// Items that only one of the two answered right.
struct Discordant {
  Index lost = 0;    // baseline right, condition wrong
  Index gained = 0;  // the other way round
};
// baseline, condition [items]: 0 or 1 each. Throws Error on other values or lengths that differ.
Discordant discordant(std::span<const double> baseline, std::span<const double> condition);

// McNemar's exact test (1947): were both equally good, a discordant item is lost with probability 1/2. Twice
// the smaller binomial tail, at most 1. It takes items as independent: for items in clusters use sign flips.
double mcnemar_p(const Discordant& counts);

}  // namespace plait::ablate
