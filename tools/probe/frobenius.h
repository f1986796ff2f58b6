// How norms grow with the length N: the claims that motivate polynomial attention (arXiv 2410.18613).
//
//   X [N, D] ~ N(0, sx^2), Q, K [D, d] ~ N(0, st^2), S = X Q K' X' / sqrt d, S^(p) its elementwise power
//   claim: E |S^(p)|_F = O(N), so that S^(p) / sqrt N has the order sqrt N of the bound on |softmax|_F
//
// Expectations in closed form (derived): given X, s_ij is a normal of random variance, so with
// R_m(p) = m (m + 2) .. (m + 2p - 2)
//   E s_ij^2p = (2p - 1)!! st^4p R_d(p) / d^p (sx^2p R_D(p))^2 off the diagonal, sx^4p R_D(2p) for the square
//   on it E |dS^(p) / dQ|_F^2 = p^2 / ((2p - 1) st^2) E |S^(p)|_F^2
#pragma once

#include <vector>

#include "tools/probe/monte_carlo.h"
#include "tools/probe/probe.h"

namespace plait::probe {

struct FrobeniusSetting {
  Index width = 64, head_dim = 32;  // D, d
  double input_deviation = 1;       // sx
  double weight_deviation = 0.125;  // st
};

// Squares of Frobenius norms at one length, averaged over draws.
struct FrobeniusSquares {
  struct Power {
    Estimate full, causal;  // |S^(p)|^2; causal: its lower triangle
    Estimate gradient;      // |dS^(p) / dQ|^2
  };
  std::vector<Power> powers;  // one per degree
  Estimate softmax;           // |softmax(S)|^2, at most N
  Estimate jacobian;          // |d softmax(S) / dS|^2, at most N / 4
  Estimate product;           // |S S|^2: what the claim would be of if it meant matrix powers
};
FrobeniusSquares frobenius_squares(const FrobeniusSetting& setting, Index length,
                                   const std::vector<Index>& degrees, const Sampling& sampling);

// E |S^(p)|_F^2, of all of S or of its lower triangle.
enum class Part { full, causal };
double expected_square(const FrobeniusSetting& setting, Index length, Index degree, Part part);

// |diag(a) - a a'|_F^2 of a row of weights: the Jacobian of softmax. At most 1/4 where they are a
// distribution.
double jacobian_square(const std::vector<double>& weights);

// sqrt of a mean square, with the standard error that has to first order.
plot::Effect root_effect(const Estimate& square, double factor = 1);

class Frobenius final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  FrobeniusSetting setting_;
  std::vector<Index> lengths_ = {32, 64, 128, 256}, degrees_ = {1, 2, 3};
  double weight_deviation_ = 0;  // 0: width^-1/2
  Index draws_ = 48;
};

}  // namespace plait::probe
