// The distributions that intervals and tests are read from: normal, Student, beta, binomial, and the
// empirical one. Incomplete beta integral and normal quantile are Eigen's (after Cephes).
#pragma once

#include <span>

#include "runtime/base/view.h"

namespace plait::ablate {

struct Interval {
  double low = 0, high = 0;
};

double normal_cdf(double z);
double normal_quantile(double p);  // p in (0, 1)

// I_x(a, b): the beta distribution's cdf; a, b > 0, x in [0, 1].
double beta_cdf(double x, double a, double b);
double beta_quantile(double p, double a, double b);

// P(X <= successes) for a binomial of n trials.
double binomial_cdf(Index successes, Index n, double probability);

// P(|T| >= |t|).
double student_two_sided(double t, double degrees);

// The half width of a two-sided interval in standard errors. Throw Error unless 0 < level < 1.
double normal_critical(double level);
double student_critical(double level, double degrees);

// Linear between order statistics, the first at p = 0 and the last at p = 1 (Hyndman and Fan, Sample
// Quantiles in Statistical Packages, 1996, type 7; NumPy's default). `sorted` ascends and is not empty.
double quantile(std::span<const double> sorted, double p);

}  // namespace plait::ablate
