// Single-location regression (arXiv 2509.21936): one of L tokens carries the label. What can be simulated and
// said of estimators that weigh the tokens by a function of their scores.
//
//   tokens X_l ~ N(0, I_D), hidden directions k*, v* with |.|^2 = D, a hidden location e;
//   chi_l = X_l.k* / sqrt D, z_l = X_l.v* / sqrt D, label y = z_e + Delta xi
//   spiked: chi_e ~ N(sqrt nu, 1), e uniform;  max: e ~ softmax_l(nu chi_l) given X
//   estimator: f = scale sum_l sigma(chi_l) z_l, its chi and z of directions of its own
//
// The risk E (y - f)^2 is Delta^2 + E |w - 1_e|^2 with w the weights: z is standard normal and independent of
// chi, so only the L scores are drawn, and given them e is averaged by its posterior.
#pragma once

#include <string>
#include <vector>

#include "layers/reference/attention_options.h"
#include "tools/probe/monte_carlo.h"

namespace plait::probe {

struct LocationTask {
  enum class Law { spiked, max };
  Law law = Law::spiked;
  Index tokens = 3;  // L
  double nu = 1;
  double noise = 0;  // Delta
  // Of the estimator's directions with the hidden ones: k.k* / (|k| |k*|), v.v* / (|v| |v*|).
  double key_cosine = 1, value_cosine = 1;

  // c_nu: the factor on chi that makes softmax the posterior of e.
  double posterior_factor() const;
};

// Orthogonal directions drawn by the seed, |.|^2 = width each: k*, v*, then those that an estimator's lean
// to.
std::vector<std::vector<double>> location_directions(Index count, Index width, std::uint64_t seed);

// One draw whole, as tokens of width D = key.size(): what a layer can be fed.
struct LocationSample {
  std::vector<double> tokens;  // [L, D]
  Index location = 0;
  double label = 0;
};
// key, value [D]: the hidden directions k*, v*, orthogonal, |.|^2 = D
LocationSample draw_sample(const LocationTask& task, const std::vector<double>& key,
                           const std::vector<double>& value, Source& source);

// f = scale sum_l sigma(factor chi_l) z_l with sigma a normaliser of softmax_attention.
struct LocationEstimator {
  NormaliserOption normaliser;
  double factor = 1;
  double scale = 1;
  double shift() const;  // of LocationWeights; 0 for others
};

// Of the posterior mean: 1 - sum of squared posterior weights, + Delta^2.
Estimate bayes_risk(const LocationTask& task, const Sampling& sampling);
Estimate location_risk(const LocationTask& task, const LocationEstimator& estimator,
                       const Sampling& sampling);
// The estimator of this sigma with the least risk over factor and scale, and the shift where sigma has one:
// a compass search on the draws of `sampling`, the scale in closed form.
LocationEstimator fit_estimator(const LocationTask& task, const NormaliserOption& normaliser,
                                const Sampling& sampling);

// The least risk of sigma = 1 + chi over factor and scale, spiked law, in closed form (derived):
// 1 - c^2 (1 - (1 - 1/L) / (1 + nu' (L - 1) / L^2)) + Delta^2, nu' = nu key_cosine^2, c = value_cosine.
double linear_risk(const LocationTask& task);

}  // namespace plait::probe
