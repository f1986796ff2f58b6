#include "tools/ablate/statistics/proportions.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

void demand_counts(Index successes, Index n) {
  if (n < 1 || successes < 0 || successes > n)
    fail("a proportion of ", successes, " out of ", n, " items has no interval");
}

}  // namespace

Interval wilson_interval(Index successes, Index n, double level) {
  demand_counts(successes, n);
  const auto items = static_cast<double>(n);
  const double p = static_cast<double>(successes) / items, z = normal_critical(level), zz = z * z / items;
  const double centre = (p + zz / 2) / (1 + zz);
  const double half = z * std::sqrt(p * (1 - p) / items + zz / (4 * items)) / (1 + zz);
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

Interval clopper_pearson_interval(Index successes, Index n, double level) {
  demand_counts(successes, n);
  normal_critical(level);  // refuses a level that is none
  const double tail = (1 - level) / 2;
  const auto k = static_cast<double>(successes), rest = static_cast<double>(n - successes);
  return {successes == 0 ? 0 : beta_quantile(tail, k, rest + 1),
          successes == n ? 1 : beta_quantile(1 - tail, k + 1, rest)};
}

Discordant discordant(std::span<const double> baseline, std::span<const double> condition) {
  if (baseline.size() != condition.size())
    fail("the baseline answered ", baseline.size(), " items, the condition ", condition.size());
  Discordant counts;
  for (std::size_t i = 0; i < baseline.size(); ++i) {
    for (const double answer : {baseline[i], condition[i]})
      if (answer != 0 && answer != 1) fail("the answer to item ", i, " must count 0 or 1, found ", answer);
    counts.lost += baseline[i] > condition[i];
    counts.gained += baseline[i] < condition[i];
  }
  return counts;
}

double mcnemar_p(const Discordant& counts) {
  const Index n = counts.lost + counts.gained;
  return std::min(1.0, 2 * binomial_cdf(std::min(counts.lost, counts.gained), n, 0.5));
}

}  // namespace plait::ablate
