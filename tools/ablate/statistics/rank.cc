#include "tools/ablate/statistics/rank.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"
#include "tools/ablate/statistics/proportions.h"
#include "tools/ablate/statistics/resample.h"

namespace plait::ablate {
namespace {

std::vector<double> resample_counts(Index n, Resample draws) {
  std::vector<double> counts(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) ++counts[static_cast<std::size_t>(draws.below(n))];
  return counts;
}

// The gap when cluster g occurs clusters[g] times and draw d draws[d] times.
double gap(std::span<const Cluster> target, View<const double> sums, std::span<const double> clusters,
           std::span<const double> draws) {
  std::vector<double> others(target.size());  // by cluster, over all draws
  for (Index d = 0; d < sums.rows; ++d) {
    const double times = draws[static_cast<std::size_t>(d)], *row = sums.row(d);
    if (times == 0) continue;
    for (std::size_t g = 0; g < others.size(); ++g) others[g] += times * row[g];
  }
  double sum = 0, weight = 0;
  for (std::size_t g = 0; g < target.size(); ++g) {
    sum += clusters[g] * (target[g].sum - others[g] / static_cast<double>(sums.rows));
    weight += clusters[g] * target[g].weight;
  }
  return sum / weight;
}

}  // namespace

ControlRank control_rank(double target, std::span<const double> draws, double level) {
  if (draws.empty()) fail("there is no control draw to rank the target among");
  Index as_bad = 0, as_good = 0;
  for (std::size_t i = 0; i < draws.size(); ++i) {
    if (std::isnan(draws[i]) || std::isnan(target))
      fail("control draw ", i, " is ", draws[i], " and the target ", target, "; they have no rank");
    as_bad += draws[i] >= target;
    as_good += draws[i] <= target;
  }
  const auto n = static_cast<Index>(draws.size());
  const auto p = [&](Index k) { return static_cast<double>(k + 1) / static_cast<double>(n + 1); };
  return {n, as_bad + 1, p(as_bad), std::min(1.0, 2 * std::min(p(as_bad), p(as_good))),
          clopper_pearson_interval(as_bad, n, level)};
}

ControlGap control_gap(std::span<const Cluster> target, View<const double> draws,
                       const BootstrapSettings& settings) {
  if (draws.rows < 1 || target.empty()) fail("there is no control draw or no cluster to take a gap of");
  if (static_cast<Index>(target.size()) != draws.cols)
    fail("the target has ", target.size(), " clusters, the control draws have ", draws.cols);
  if (settings.resamples < 1)
    fail("the bootstrap needs at least 1 resample, ", settings.resamples, " are asked for");
  std::vector<double> replicates(static_cast<std::size_t>(settings.resamples));
  parallel_for(settings.threads, settings.resamples, [&](Index r) {
    const auto clusters = resample_counts(draws.cols, {settings.seed, Purpose::bootstrap, r});
    const auto sets = resample_counts(draws.rows, {settings.seed, Purpose::bootstrap_controls, r});
    replicates[static_cast<std::size_t>(r)] = gap(target, draws, clusters, sets);
  });
  const std::vector<double> once(std::max(target.size(), static_cast<std::size_t>(draws.rows)), 1.0);
  return {gap(target, draws, once, once), percentile_interval(std::move(replicates), settings.level)};
}

}  // namespace plait::ablate
