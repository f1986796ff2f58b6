// Sign-flip permutation test: were the ablation without effect, baseline and condition could trade places in
// every document, and each cluster's sum could as well have the other sign (Fisher 1935; Good, Permutation,
// Parametric and Bootstrap Tests of Hypotheses, 2005).
#pragma once

#include <cstdint>
#include <span>

#include "tools/ablate/statistics/clusters.h"

namespace plait::ablate {

struct SignFlipSettings {
  Index exact_up_to = 20;  // clusters; at most 30. All 2^clusters assignments are counted up to here
  Index flips = 9999;      // above it: random ones, the smallest p is 1 / (flips + 1)
  std::uint64_t seed = 0;
  int threads = 1;  // changes no bit
};

struct SignFlipTest {
  double p = 1;           // two-sided
  Index assignments = 0;  // looked at, the observed one among them
};

// Exact: the share of assignments whose |sum| is at least the observed one. Otherwise (k + 1) / (flips + 1)
// for k such among the random ones (Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010). Sums
// that differ by less than their rounding count as equal. Throws Error where refusal() has a reason.
SignFlipTest sign_flip_test(std::span<const Cluster> clusters, const SignFlipSettings& settings);

}  // namespace plait::ablate
