#include "tools/ablate/statistics/distributions.h"

#include <cmath>
#include <unsupported/Eigen/SpecialFunctions>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

double tail_of(double level) {
  if (!(level > 0 && level < 1)) fail("the level of an interval must lie between 0 and 1, found ", level);
  return 1 - level;
}

// Where a rising function crosses `target` between low and high, to the last bit.
template <class Function>
double bisect(double low, double high, double target, const Function& rising) {
  while (true) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return middle;
    (rising(middle) < target ? low : high) = middle;
  }
}

}  // namespace

double normal_cdf(double z) { return 0.5 * std::erfc(-z * std::sqrt(0.5)); }

double normal_quantile(double p) { return Eigen::numext::ndtri(p); }

double beta_cdf(double x, double a, double b) {
  if (x <= 0) return 0;
  return x >= 1 ? 1 : Eigen::numext::betainc(a, b, x);
}

double beta_quantile(double p, double a, double b) {
  if (p <= 0) return 0;
  if (p >= 1) return 1;
  return bisect(0, 1, p, [&](double x) { return beta_cdf(x, a, b); });
}

double binomial_cdf(Index successes, Index n, double probability) {
  if (successes < 0) return 0;
  if (successes >= n) return 1;
  return beta_cdf(1 - probability, static_cast<double>(n - successes), static_cast<double>(successes + 1));
}

double student_two_sided(double t, double degrees) {
  return beta_cdf(degrees / (degrees + t * t), degrees / 2, 0.5);
}

double normal_critical(double level) { return -normal_quantile(tail_of(level) / 2); }

double student_critical(double level, double degrees) {
  const double tail = tail_of(level);
  double high = 1;
  while (student_two_sided(high, degrees) > tail) high *= 2;
  return bisect(0, high, -tail, [&](double t) { return -student_two_sided(t, degrees); });
}

double quantile(std::span<const double> sorted, double p) {
  const double place = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  if (below + 1 >= sorted.size()) return sorted.back();
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[below + 1] - sorted[below]);
}

}  // namespace plait::ablate
