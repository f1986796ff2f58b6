// Shapley values from sampled permutations: a component's mean marginal effect over the orders in which
// components can be removed. Each permutation goes with its reverse, which cancels much of the variance
// (Castro et al. 2009; Mitchell et al., Sampling Permutations for Shapley Value Estimation, 2022).
#pragma once

#include <span>
#include <vector>

#include "runtime/base/view.h"
#include "tools/ablate/statistics/distributions.h"

namespace plait::ablate {

// Collects pairs of a random order and its reverse. Pairs are independent, the two orders of one are not, so
// errors are those of pair means.
class ShapleyEstimate {
 public:
  // Throws Error on fewer than 1 player.
  explicit ShapleyEstimate(Index players);

  // order [players]: a permutation. forward [players + 1]: the value with the first 0, 1, .. players of
  // `order` removed; backward: the same along the reversed order. Throws Error when a length is wrong,
  // `order` no permutation, a value no number, or when the two disagree on the value of none or of all.
  void add(std::span<const Index> order, std::span<const double> forward, std::span<const double> backward);

  Index pairs() const { return pairs_; }
  // By player. They add up to value(all) - value(none), up to rounding, after any number of pairs.
  const std::vector<double>& values() const { return mean_; }
  // Throw Error on fewer than 2 pairs. Student intervals, each at `level` on its own.
  std::vector<double> standard_errors() const;
  std::vector<Interval> intervals(double level) const;
  // The stop rule: at least `least_pairs` (2 or more) and no interval wider than `width`. Stopping at a width
  // is stopping on variances, not on effects; its coverage tends to the level as the width shrinks (Chow and
  // Robbins 1965).
  bool settled(double width, double level, Index least_pairs) const;

 private:
  Index pairs_ = 0;
  std::vector<double> mean_, squares_;  // by player: mean, and sum of squared deviations from it
};

}  // namespace plait::ablate
