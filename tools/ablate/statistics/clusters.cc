#include "tools/ablate/statistics/clusters.h"

#include <cmath>
#include <map>

#include "runtime/base/error.h"

namespace plait::ablate {

std::vector<Cluster> sum_by_cluster(std::span<const double> differences, std::span<const double> weights,
                                    std::span<const Index> ids) {
  if (differences.empty()) fail("there is no item to take a mean of");
  if (ids.size() != differences.size())
    fail("there are ", differences.size(), " differences but ", ids.size(), " cluster ids");
  if (!weights.empty() && weights.size() != differences.size())
    fail("there are ", differences.size(), " differences but ", weights.size(), " weights");
  std::map<Index, Cluster> by_id;
  for (std::size_t i = 0; i < differences.size(); ++i) {
    const double weight = weights.empty() ? 1 : weights[i];
    if (!std::isfinite(differences[i])) fail("the difference of item ", i, " is ", differences[i]);
    if (!(weight > 0) || !std::isfinite(weight))
      fail("the weight of item ", i, " must be above 0, found ", weight);
    Cluster& cluster = by_id[ids[i]];
    cluster.sum += differences[i];
    cluster.weight += weight;
    ++cluster.items;
  }
  std::vector<Cluster> clusters;
  for (const auto& [id, cluster] : by_id) clusters.push_back(cluster);
  return clusters;
}

std::vector<Cluster> one_per_item(std::span<const double> differences) {
  std::vector<Index> ids(differences.size());
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<Index>(i);
  return sum_by_cluster(differences, {}, ids);
}

std::string refusal(std::span<const Cluster> clusters) {
  if (clusters.size() >= 2) return {};
  return cat("an interval over clusters (documents) needs at least 2 of them, found ", clusters.size());
}

double mean(std::span<const Cluster> clusters) {
  if (clusters.empty()) fail("there is no cluster to take a mean of");
  double sum = 0, weight = 0;
  for (const Cluster& c : clusters) {
    sum += c.sum;
    weight += c.weight;
  }
  return sum / weight;
}

double standard_error(std::span<const Cluster> clusters) {
  if (const std::string why = refusal(clusters); !why.empty()) fail(why);
  const double centre = mean(clusters);
  double squares = 0, weight = 0;
  for (const Cluster& c : clusters) {
    const double residual = c.sum - centre * c.weight;
    squares += residual * residual;
    weight += c.weight;
  }
  const auto n = static_cast<double>(clusters.size());
  return std::sqrt(n / (n - 1) * squares) / weight;
}

StudentTest student_test(std::span<const Cluster> clusters, double level) {
  const double error = standard_error(clusters), centre = mean(clusters);
  const double degrees = static_cast<double>(clusters.size()) - 1;
  const double half = student_critical(level, degrees) * error;
  const double t = centre == 0 ? 0 : centre / error;
  return {t, student_two_sided(t, degrees), {centre - half, centre + half}};
}

}  // namespace plait::ablate
