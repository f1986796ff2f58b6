#include "tools/ablate/statistics/bootstrap.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"
#include "tools/ablate/statistics/resample.h"

namespace plait::ablate {
namespace {

// Half of the replicates that equal the estimate count as below it. Kept off 0 and 1, whose quantiles are
// infinite.
double share_below(std::span<const double> sorted, double estimate) {
  const auto [first, last] = std::equal_range(sorted.begin(), sorted.end(), estimate);
  const auto n = static_cast<double>(sorted.size());
  const double below = static_cast<double>((first - sorted.begin()) + (last - sorted.begin())) / 2;
  return std::clamp(below / n, 1 / (n + 1), n / (n + 1));
}

// A sixth of the skewness of the means without one cluster, with its sign turned.
double acceleration(std::span<const Cluster> clusters) {
  double sum = 0, weight = 0;
  for (const Cluster& c : clusters) {
    sum += c.sum;
    weight += c.weight;
  }
  std::vector<double> without;
  double centre = 0;
  for (const Cluster& c : clusters) {
    without.push_back((sum - c.sum) / (weight - c.weight));
    centre += without.back();
  }
  centre /= static_cast<double>(clusters.size());
  double squares = 0, cubes = 0;
  for (const double value : without) {
    const double d = centre - value;
    squares += d * d;
    cubes += d * d * d;
  }
  return squares > 0 ? cubes / (6 * squares * std::sqrt(squares)) : 0;
}

Interval bca_interval(std::span<const Cluster> clusters, std::vector<double> replicates, double level) {
  std::sort(replicates.begin(), replicates.end());
  const double bias = normal_quantile(share_below(replicates, mean(clusters)));
  const double a = acceleration(clusters), critical = normal_critical(level);
  const auto end = [&](double z) {
    const double shifted = bias + z, scale = 1 - a * shifted;
    // |a| is at most 1/6: a correction has its pole 6 deviations out, and past it is the outermost replicate.
    if (scale <= 0) return shifted > 0 ? replicates.back() : replicates.front();
    return quantile(replicates, normal_cdf(bias + shifted / scale));
  };
  return {end(-critical), end(critical)};
}

}  // namespace

std::vector<double> bootstrap_means(std::span<const Cluster> clusters, const BootstrapSettings& settings) {
  if (const std::string why = refusal(clusters); !why.empty()) fail(why);
  if (settings.resamples < 1)
    fail("the bootstrap needs at least 1 resample, ", settings.resamples, " are asked for");
  std::vector<double> means(static_cast<std::size_t>(settings.resamples));
  const auto count = static_cast<Index>(clusters.size());
  parallel_for(settings.threads, settings.resamples, [&](Index replicate) {
    Resample draws(settings.seed, Purpose::bootstrap, replicate);
    double sum = 0, weight = 0;
    for (Index i = 0; i < count; ++i) {
      const Cluster& c = clusters[static_cast<std::size_t>(draws.below(count))];
      sum += c.sum;
      weight += c.weight;
    }
    means[static_cast<std::size_t>(replicate)] = sum / weight;
  });
  return means;
}

Interval percentile_interval(std::vector<double> replicates, double level) {
  if (!(level > 0 && level < 1)) fail("the level of an interval must lie between 0 and 1, found ", level);
  std::sort(replicates.begin(), replicates.end());
  return {quantile(replicates, (1 - level) / 2), quantile(replicates, (1 + level) / 2)};
}

Interval bootstrap_interval(std::span<const Cluster> clusters, const BootstrapSettings& settings) {
  std::vector<double> means = bootstrap_means(clusters, settings);
  if (settings.interval == BootstrapInterval::percentile)
    return percentile_interval(std::move(means), settings.level);
  return bca_interval(clusters, std::move(means), settings.level);
}

}  // namespace plait::ablate
