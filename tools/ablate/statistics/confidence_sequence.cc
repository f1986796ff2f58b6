#include "tools/ablate/statistics/confidence_sequence.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The largest t^2 / (n - 1) whose Bayes factor is below the bound; infinite when every one is.
double largest_statistic(double n, double prior, double evidence) {
  const double log_root = 2 / n * (evidence + std::log1p(n / prior) / 2);
  const double left = 1 - std::exp(log_root) * prior / (n + prior);
  return left > 0 ? std::expm1(log_root) / left : kInfinity;
}

}  // namespace

ConfidenceSequence::ConfidenceSequence(const SequenceSettings& settings) : first_look_(settings.first_look) {
  normal_critical(settings.level);  // refuses a level that is none
  if (settings.tightest_at < 2 || first_look_ < 2)
    fail("a confidence sequence is tuned for ", settings.tightest_at, " clusters and first looked at after ",
         first_look_, "; both must be at least 2");
  evidence_ = -std::log1p(-settings.level);
  prior_ = static_cast<double>(settings.tightest_at) / (std::log1p(2 * evidence_) + 2 * evidence_);
}

void ConfidenceSequence::add(const Cluster& cluster) {
  if (!std::isfinite(cluster.sum) || !(cluster.weight > 0) || !std::isfinite(cluster.weight))
    fail("cluster ", clusters_, " has the sum ", cluster.sum, " and the weight ", cluster.weight,
         "; a finite sum and a weight above 0 are needed");
  ++clusters_;
  const auto n = static_cast<double>(clusters_);
  const double d_sum = cluster.sum - sum_, d_weight = cluster.weight - weight_;
  sum_ += d_sum / n;
  weight_ += d_weight / n;
  sum_squares_ += d_sum * (cluster.sum - sum_);
  weight_squares_ += d_weight * (cluster.weight - weight_);
  sum_by_weight_ += d_sum * (cluster.weight - weight_);
}

double ConfidenceSequence::value() const {
  return clusters_ == 0 ? std::numeric_limits<double>::quiet_NaN() : sum_ / weight_;
}

// All m with n * mean(e)^2 <= u * (centred sum of e^2): between the roots of a m^2 - 2 b m + c.
Interval ConfidenceSequence::interval() const {
  const auto n = static_cast<double>(clusters_);
  const double u = clusters_ < first_look_ ? kInfinity : largest_statistic(n, prior_, evidence_);
  if (u == kInfinity) return {-kInfinity, kInfinity};
  const double a = n * weight_ * weight_ - u * weight_squares_;
  if (!(a > 0)) return {-kInfinity, kInfinity};
  const double b = n * sum_ * weight_ - u * sum_by_weight_, c = n * sum_ * sum_ - u * sum_squares_;
  const double root = std::sqrt(std::max(0.0, b * b - a * c));
  return {(b - root) / a, (b + root) / a};
}

Verdict verdict(const Interval& interval, double smallest_effect) {
  if (interval.low > 0 || interval.high < 0) return Verdict::effect;
  return interval.low > -smallest_effect && interval.high < smallest_effect ? Verdict::negligible
                                                                            : Verdict::undecided;
}

}  // namespace plait::ablate
