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
// 2024. Weights enter as in Fieller's interval (1954). Documents must come in an order drawn beforehand, not
// in that of the text.
//
// For Gaussian residuals of any variance the bound is a theorem from the first look on. For others it holds
// as far as sums over first_look documents are Gaussian (Waudby-Smith et al., Time-uniform central limit
// theory and asymptotic confidence sequences, 2024). Of 4,000 simulated studies of 300 documents, level 95 %,
// tightest_at 300, these ever missed: Gaussian 1.3 %; exponential (skewness 2) 4.4, 3.9, 3.3 % with a first
// look at 2, 30, 60; log-normal (skewness 6) 9.7, 10.8, 8.0 %, so that such documents need more than that, or
// none of this.
struct SequenceSettings {
  double level = 0.95;
  // The number of clusters for which the prior is tuned: all there are, or as many as one expects to need;
  // c = tightest_at / (log(1 + 2 l) + 2 l), l = -log(1 - level). The larger, the wider and safer early looks.
  Index tightest_at = 0;
  Index first_look = 50;  // no interval before so many clusters
};

class ConfidenceSequence {
 public:
  // Throws Error on a level outside (0, 1) and on tightest_at or first_look below 2.
  explicit ConfidenceSequence(const SequenceSettings& settings);

  // Throws Error on a sum that is no number or a weight not above 0.
  void add(const Cluster& cluster);

  Index clusters() const { return clusters_; }
  double value() const;  // the ratio of sums so far; NaN before the first cluster
  // Infinite on both sides before the first look, and while the clusters are too few to say anything.
  Interval interval() const;

 private:
  double evidence_, prior_;  // log 1 / (1 - level); c
  Index first_look_, clusters_ = 0;
  double sum_ = 0, weight_ = 0;                                      // means over clusters
  double sum_squares_ = 0, weight_squares_ = 0, sum_by_weight_ = 0;  // centred sums of products
};

enum class Verdict { undecided, effect, negligible };

// The stop rule: effect when the interval excludes 0, negligible when it lies within +-smallest_effect (0:
// never).
Verdict verdict(const Interval& interval, double smallest_effect);

}  // namespace plait::ablate
