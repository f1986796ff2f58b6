// A target among matched random controls: is removing these components worse than removing as many others?
#pragma once

#include <span>

#include "tools/ablate/statistics/bootstrap.h"

namespace plait::ablate {

struct ControlRank {
  Index draws = 0;
  Index rank = 0;          // 1: worse than every draw; draws + 1: than none. Ties count against it
  double p_worse = 1;      // (draws at least as bad + 1) / (draws + 1), never below 1 / (draws + 1)
  double p_two_sided = 1;  // twice the smaller of p_worse and its counterpart, at most 1
  Interval share_as_bad;   // Clopper-Pearson, of all random sets that are at least as bad
};

// target, draws: effects, larger is worse. Throws Error without draws or where one is no number.
ControlRank control_rank(double target, std::span<const double> draws, double level);

struct ControlGap {
  double value = 0;  // target - mean of the draws, in nats per token
  Interval interval;
};

// target: its clusters; draws [draws, clusters]: the sums of each draw over the same clusters and weights.
// Clusters and draws are both drawn with replacement in every replicate (Owen, The Pigeonhole Bootstrap,
// 2007), so the interval speaks of other documents and of other random sets; with one cluster only of other
// sets. Percentile; settings.interval is not read. Throws Error without draws or when the shapes differ.
ControlGap control_gap(std::span<const Cluster> target, View<const double> draws,
                       const BootstrapSettings& settings);

}  // namespace plait::ablate
