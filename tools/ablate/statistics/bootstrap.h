// Cluster bootstrap: whole clusters are drawn with replacement, so what items of a document share stays
// together (Davison and Hinkley, Bootstrap Methods and their Application, 1997, 3.8).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tools/ablate/statistics/clusters.h"

namespace plait::ablate {

// percentile: quantiles of the replicates. bca: the same at levels corrected for bias and skewness, the
// acceleration from leaving out each cluster (Efron, Better Bootstrap Confidence Intervals, 1987);
// second-order accurate, and the better of the two for the skewed sums of nats that an ablation leaves.
enum class BootstrapInterval { percentile, bca };

struct BootstrapSettings {
  Index resamples = 10000;
  double level = 0.95;
  BootstrapInterval interval = BootstrapInterval::bca;
  std::uint64_t seed = 0;
  int threads = 1;  // changes no bit
};

// The mean of each resample, in order of replicate. Replicate r draws the same clusters for every comparison
// with as many clusters and the same seed, so differences between conditions share their resamples.
std::vector<double> bootstrap_means(std::span<const Cluster> clusters, const BootstrapSettings& settings);

// Throws Error where refusal() has a reason, and on fewer than 1 resample or a level outside (0, 1).
Interval bootstrap_interval(std::span<const Cluster> clusters, const BootstrapSettings& settings);

// Quantiles at both ends of `level` of unsorted replicates.
Interval percentile_interval(std::vector<double> replicates, double level);

}  // namespace plait::ablate
