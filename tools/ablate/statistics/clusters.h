// Paired differences, summed within clusters (documents; subjects). Every mean of a study is a ratio of sums,
// (sum of differences) / (sum of weights): nats per token with tokens as weights, or an accuracy difference
// with one per item. Clusters are taken as independent, the items within one never are.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tools/ablate/statistics/distributions.h"

namespace plait::ablate {

struct Cluster {
  double sum = 0;     // of the differences condition - baseline
  double weight = 0;  // what the mean is per: tokens, items; > 0
  Index items = 0;
};

// differences, weights, ids [items]; weights may be empty: one each. An item is a token, a window or a
// question; its difference is a sum over its weight. Clusters come by ascending id. Throws Error when the
// lengths differ, when there is no item, and naming the item on a difference that is no number or a weight
// not above 0.
std::vector<Cluster> sum_by_cluster(std::span<const double> differences, std::span<const double> weights,
                                    std::span<const Index> ids);
// Every item its own cluster of weight 1.
std::vector<Cluster> one_per_item(std::span<const double> differences);

// Why these clusters give no standard error, interval or p-value, as a sentence; empty when they do.
std::string refusal(std::span<const Cluster> clusters);

// The ratio of sums. Throws Error without clusters.
double mean(std::span<const Cluster> clusters);

// Cluster-robust: with residuals e_g = sum_g - mean * weight_g of G clusters, sqrt(G / (G - 1) sum e_g^2) /
// sum weight_g. It is the linearised error of a ratio (Cochran, Sampling Techniques, 3rd ed., 6.3) and the
// sandwich of a weighted regression on a constant (Liang and Zeger 1986, with the correction of Stata and
// statsmodels); with one item of weight 1 per cluster, s / sqrt(n). Throws Error where refusal() has a
// reason.
double standard_error(std::span<const Cluster> clusters);

// Student's t with G - 1 degrees of freedom on the error above; the paired t-test when clusters are items.
struct StudentTest {
  double t = 0, p = 0;  // two-sided
  Interval interval;
};
StudentTest student_test(std::span<const Cluster> clusters, double level);

}  // namespace plait::ablate
