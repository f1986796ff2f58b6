// One comparison of a condition with its baseline: what a row of results.csv says about it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tools/ablate/statistics/bootstrap.h"
#include "tools/ablate/statistics/permutation.h"

namespace plait::ablate {

struct PairedSettings {
  double level = 0.95;
  BootstrapInterval interval = BootstrapInterval::bca;
  Index resamples = 10000, flips = 9999;
  std::uint64_t seed = 0;
  int threads = 1;  // changes no bit
};

struct PairedMean {
  double value = 0;
  Index items = 0, clusters = 0;
  std::string refused;  // why what follows is NaN; empty when it is not
  double standard_error = 0;
  Interval interval;
  double level = 0;
  std::string method;  // "cluster_bootstrap_bca", "cluster_bootstrap_percentile"; empty when refused
  double p = 0;        // sign flips of clusters, two-sided
};

// One cluster gives the mean and a reason for the rest. Throws Error without clusters and on bad settings.
PairedMean paired_mean(std::span<const Cluster> clusters, const PairedSettings& settings);

}  // namespace plait::ablate
