#include "tools/ablate/statistics/paired.h"

#include <limits>

namespace plait::ablate {

PairedMean paired_mean(std::span<const Cluster> clusters, const PairedSettings& settings) {
  PairedMean result;
  result.value = mean(clusters);
  result.clusters = static_cast<Index>(clusters.size());
  for (const Cluster& c : clusters) result.items += c.items;
  result.level = settings.level;
  result.refused = refusal(clusters);
  if (!result.refused.empty()) {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    result.standard_error = result.p = nan;
    result.interval = {nan, nan};
    return result;
  }
  result.standard_error = standard_error(clusters);
  result.interval = bootstrap_interval(
      clusters, {settings.resamples, settings.level, settings.interval, settings.seed, settings.threads});
  result.method =
      settings.interval == BootstrapInterval::bca ? "cluster_bootstrap_bca" : "cluster_bootstrap_percentile";
  SignFlipSettings flips;
  flips.flips = settings.flips;
  flips.seed = settings.seed;
  flips.threads = settings.threads;
  result.p = sign_flip_test(clusters, flips).p;
  return result;
}

}  // namespace plait::ablate
