#include "tools/ablate/statistics/multiplicity.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

std::vector<std::size_t> ascending(std::span<const double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] < p[b]; });
  return order;
}

std::vector<double> holm(std::span<const double> p) {
  const std::vector<std::size_t> order = ascending(p);
  std::vector<double> adjusted(p.size());
  double largest = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, static_cast<double>(order.size() - i) * p[order[i]]);
    adjusted[order[i]] = std::min(1.0, largest);
  }
  return adjusted;
}

std::vector<double> benjamini_hochberg(std::span<const double> p) {
  const std::vector<std::size_t> order = ascending(p);
  std::vector<double> adjusted(p.size());
  double smallest = 1;
  for (std::size_t i = order.size(); i-- > 0;) {
    smallest =
        std::min(smallest, static_cast<double>(order.size()) / static_cast<double>(i + 1) * p[order[i]]);
    adjusted[order[i]] = smallest;
  }
  return adjusted;
}

}  // namespace

std::string to_string(Adjustment adjustment) {
  switch (adjustment) {
    case Adjustment::holm:
      return "holm";
    case Adjustment::benjamini_hochberg:
      return "bh";
    case Adjustment::none:
      break;
  }
  return "none";
}

std::vector<double> adjust(Adjustment adjustment, std::span<const double> p) {
  for (std::size_t i = 0; i < p.size(); ++i)
    if (!(p[i] >= 0 && p[i] <= 1)) fail("the p-value of comparison ", i, " must lie in [0, 1], found ", p[i]);
  switch (adjustment) {
    case Adjustment::holm:
      return holm(p);
    case Adjustment::benjamini_hochberg:
      return benjamini_hochberg(p);
    case Adjustment::none:
      break;
  }
  return {p.begin(), p.end()};
}

}  // namespace plait::ablate
