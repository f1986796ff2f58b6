// Softmax attention over many independent tokens (arXiv 2512.11784): for x_l ~ N(mu, Sigma) and logits a.x_l
// the output goes to mu + Sigma a, linear in the query (derived: an exponential tilt moves a normal's mean).
// The paper's constants are UNCONFIRMED; the one here is derived by the delta method:
//   L E |err|^2 -> e^(a' Sigma a) (tr Sigma + a' Sigma^2 a)
//
// Of a model: how far each head is from that linear read, with the keys' own mean and covariance,
//   surrogate = mean v + cov(v, s), s the logits of the row
#pragma once

#include <optional>
#include <vector>

#include "tools/probe/attention_reading.h"
#include "tools/probe/monte_carlo.h"
#include "tools/probe/probe.h"

namespace plait::probe {

// In the axes of Sigma, mu = 0 (it moves output and limit alike).
struct GaussianPrompt {
  std::vector<double> variances;  // of Sigma [d]
  std::vector<double> logit;      // a [d]
};

struct PromptError {
  Estimate norm, square;  // |err|, |err|^2
};
PromptError prompt_error(const GaussianPrompt& prompt, Index length, const Sampling& sampling);
double limit_square(const GaussianPrompt& prompt);  // of L E |err|^2

// What one row of a head reads, and its surrogate over the keys whose logit is not -infinity. weights, logits
// [keys], values [keys] of [width] each.
struct SurrogateRow {
  std::vector<double> output, surrogate, mean;
};
SurrogateRow surrogate_row(const std::vector<double>& weights, const std::vector<double>& logits,
                           const std::vector<const double*>& values, Index width);

class LargePromptLimit final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  Findings of_gaussian(const Common& common) const;
  Findings of_model(const Common& common) const;

  ReadingFlags reading_;
  std::vector<double> variances_ = {1, 1, 1, 1};
  double norm_ = 0.81;
  std::vector<Index> lengths_ = {100, 1000, 10000, 100000};
  Index draws_ = 64;
  std::optional<Index> skip_;
};

}  // namespace plait::probe
