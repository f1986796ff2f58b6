#include "tools/ablate/statistics/shapley.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

void demand_values(std::span<const double> values, std::size_t players) {
  if (values.size() != players + 1)
    fail("a permutation of ", players, " components has ", players + 1, " values, found ", values.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) fail("the value with ", i, " components removed is ", values[i]);
}

void demand_permutation(std::span<const Index> order, std::size_t players) {
  if (order.size() != players) fail("an order of ", players, " components names ", order.size());
  std::vector<bool> seen(players);
  for (const Index player : order) {
    if (player < 0 || player >= static_cast<Index>(players) || seen[static_cast<std::size_t>(player)])
      fail("component ", player, " occurs twice in an order of ", players, " or is none of them");
    seen[static_cast<std::size_t>(player)] = true;
  }
}

}  // namespace

ShapleyEstimate::ShapleyEstimate(Index players) {
  if (players < 1) fail("Shapley values need at least 1 component, found ", players);
  mean_.resize(static_cast<std::size_t>(players));
  squares_.resize(mean_.size());
}

void ShapleyEstimate::add(std::span<const Index> order, std::span<const double> forward,
                          std::span<const double> backward) {
  const std::size_t players = mean_.size();
  demand_permutation(order, players);
  demand_values(forward, players);
  demand_values(backward, players);
  if (forward.front() != backward.front() || forward.back() != backward.back())
    fail("a permutation and its reverse start at ", forward.front(), " and ", backward.front(),
         " and end at ", forward.back(), " and ", backward.back(), "; both must agree");
  ++pairs_;
  for (std::size_t i = 0; i < players; ++i) {
    const std::size_t mirror = players - 1 - i;
    const double marginal = ((forward[i + 1] - forward[i]) + (backward[mirror + 1] - backward[mirror])) / 2;
    const auto player = static_cast<std::size_t>(order[i]);
    const double step = marginal - mean_[player];
    mean_[player] += step / static_cast<double>(pairs_);
    squares_[player] += step * (marginal - mean_[player]);
  }
}

std::vector<double> ShapleyEstimate::standard_errors() const {
  if (pairs_ < 2) fail("errors of Shapley values need at least 2 pairs of permutations, found ", pairs_);
  const auto n = static_cast<double>(pairs_);
  std::vector<double> errors;
  for (const double s : squares_) errors.push_back(std::sqrt(s / (n - 1) / n));
  return errors;
}

std::vector<Interval> ShapleyEstimate::intervals(double level) const {
  const std::vector<double> errors = standard_errors();
  const double critical = student_critical(level, static_cast<double>(pairs_) - 1);
  std::vector<Interval> result;
  for (std::size_t i = 0; i < errors.size(); ++i)
    result.push_back({mean_[i] - critical * errors[i], mean_[i] + critical * errors[i]});
  return result;
}

bool ShapleyEstimate::settled(double width, double level, Index least_pairs) const {
  if (pairs_ < std::max<Index>(2, least_pairs)) return false;
  const std::vector<Interval> all = intervals(level);
  return std::all_of(all.begin(), all.end(), [&](const Interval& i) { return i.high - i.low <= width; });
}

}  // namespace plait::ablate
