// Anytime-valid intervals for a paired mean: one may look after every document and stop when one likes, and
// the chance that any of the intervals ever misses the truth stays below 1 - level.
#pragma once

#include "tools/ablate/statistics/clusters.h"

namespace plait::ablate {

// Inverts the t-test martingale with a normal prior on the standardised mean: for a candidate mean m, the
// residuals e_g = sum_g - m weight_g have mean zero, and the Bayes factor of their t statistic against zero,
//   sqrt(r) ((1 + t^2 / (n - 1)) / (1 + r t^2 / (n - 1)))^(n / 2),  r = c / (n + c),
// is at most 1 / (1 - level) for ever with probability `level` (Ville). Lai, On Confidence Sequences, 1976;
// Wang and Ramdas, Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance,
// 2024. Weights enter as in Fieller's interval (1954). Exact for Gaussian residuals of any variance; for
// others as good as their sums are Gaussian (Waudby-Smith et al., Time-uniform central limit theory, 2024):
// the tests measure it. Documents must come in an order drawn beforehand, not in that of the text.
class ConfidenceSequence {
 public:
  // tightest_at: the number of clusters for which the prior is tuned, e.g. all there are or half of them:
  // c = tightest_at / (log(1 + 2 l) + 2 l), l = -log(1 - level). Throws Error on a level outside (0, 1) or
  // tightest_at < 2.
  ConfidenceSequence(double level, Index tightest_at);

  // Throws Error on a sum that is no number or a weight not above 0.
  void add(const Cluster& cluster);

  Index clusters() const { return clusters_; }
  double value() const;  // the ratio of sums so far; NaN before the first cluster
  // Infinite on both sides while the clusters are too few to say anything.
  Interval interval() const;

 private:
  double evidence_, prior_;  // log 1 / (1 - level); c
  Index clusters_ = 0;
  double sum_ = 0, weight_ = 0;                                      // means over clusters
  double sum_squares_ = 0, weight_squares_ = 0, sum_by_weight_ = 0;  // centred sums of products
};

enum class Verdict { undecided, effect, negligible };

// The stop rule: effect when the interval excludes 0, negligible when it lies within +-smallest_effect (0:
// never).
Verdict verdict(const Interval& interval, double smallest_effect);

}  // namespace plait::ablate
