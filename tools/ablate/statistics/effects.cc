#include "tools/ablate/statistics/effects.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/base/error.h"

namespace plait::ablate {

UnitEffects unit_effects(double effect, const Removed& removed) {
  if (removed.layers < 0 || removed.params < 0)
    fail("a condition cannot remove ", removed.layers, " layers and ", removed.params, " parameters");
  const auto per = [&](double units) {
    return units > 0 ? effect / units : std::numeric_limits<double>::quiet_NaN();
  };
  return {per(static_cast<double>(removed.layers)), per(static_cast<double>(removed.params) * 1e-6),
          per(removed.seconds)};
}

std::vector<bool> pareto_front(std::span<const double> harms, std::span<const double> savings) {
  if (harms.size() != savings.size())
    fail("there are ", harms.size(), " harms but ", savings.size(), " savings");
  for (std::size_t i = 0; i < harms.size(); ++i)
    if (std::isnan(harms[i]) || std::isnan(savings[i]))
      fail("point ", i, " has the harm ", harms[i], " and the saving ", savings[i]);
  std::vector<std::size_t> order(harms.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return harms[a] != harms[b] ? harms[a] < harms[b] : savings[a] > savings[b];
  });
  // By growing harm, a point is on the front if it saves more than all before it, or equals the last such
  // one.
  std::vector<bool> front(harms.size());
  for (std::size_t i = 0, best = 0; i < order.size(); ++i) {
    const std::size_t point = order[i], leader = order[best];
    const bool equal = harms[point] == harms[leader] && savings[point] == savings[leader];
    if (i > 0 && !equal && savings[point] <= savings[leader]) continue;
    front[point] = true;
    best = i;
  }
  return front;
}

}  // namespace plait::ablate
