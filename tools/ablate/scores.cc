#include "tools/ablate/scores.h"

#include <algorithm>
#include <cmath>

#include "runtime/kernels/kernels.h"

namespace plait::ablate {

LogSoftmax::LogSoftmax(std::span<const float> logits, std::span<float> exponentials, const Compute& compute)
    : logits_(logits) {
  const auto best = std::max_element(logits.begin(), logits.end());  // the first of equal ones
  kernels(compute).exp_minus(logits.data(), *best, exponentials.data(), static_cast<Index>(logits.size()));
  double sum = 0;
  for (const float e : exponentials.first(logits.size())) sum += e;
  log_sum_ = *best + std::log(sum);
  greedy_ = static_cast<Token>(best - logits.begin());
}

RowScorer::RowScorer(Index vocab, const Compute& compute)
    : compute_(compute),
      logits_(static_cast<std::size_t>(vocab)),
      probability_(static_cast<std::size_t>(vocab)) {}

RowScorer::Summary RowScorer::summary(std::span<const float> logits, std::span<float> exponentials) const {
  const LogSoftmax row(logits, exponentials, compute_);
  return {row.log_sum(), static_cast<std::size_t>(row.greedy())};
}

void RowScorer::set_baseline(std::span<const float> logits) {
  std::copy(logits.begin(), logits.end(), logits_.begin());
  baseline_ = summary(logits, probability_);
  const auto scale = static_cast<float>(std::exp(logits_[baseline_.best] - baseline_.log_sum));
  for (float& p : probability_) p *= scale;
}

TokenScores RowScorer::score(std::span<const float> logits, Token target, std::span<float> scratch) const {
  const Summary own = summary(logits, scratch);
  const auto index = static_cast<std::size_t>(target);
  const float goal = logits[index];
  TokenScores scores;
  scores.nll = static_cast<float>(own.log_sum - goal);
  scores.agree = own.best == baseline_.best;
  double difference = 0;
  Index ahead = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    difference += static_cast<double>(probability_[i]) * (static_cast<double>(logits_[i]) - logits[i]);
    ahead += logits[i] > goal || (logits[i] == goal && i < index);
  }
  scores.rank = static_cast<std::int32_t>(ahead);
  // The sum's rounding may leave a few 1e-9 below zero where rows are equal.
  scores.kl = static_cast<float>(std::max(0.0, difference - baseline_.log_sum + own.log_sum));
  return scores;
}

}  // namespace plait::ablate
