// The log-softmax of rows of logits, and what is kept of a row: the target's likelihood, and how far the row
// is from the baseline's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/numerics.h"
#include "runtime/base/view.h"

namespace plait::ablate {

// One row's, in f32 over an f64 sum. Borrows the row.
class LogSoftmax {
 public:
  // logits [vocab]; exponentials [vocab] is scratch and holds exp(logit - the greatest) afterwards.
  LogSoftmax(std::span<const float> logits, std::span<float> exponentials, const Compute& compute);
  double nll(Token token) const { return log_sum_ - logits_[static_cast<std::size_t>(token)]; }
  double log_sum() const { return log_sum_; }  // of the exponentials of the logits
  Token greedy() const { return greedy_; }     // of equal logits the lowest id

 private:
  std::span<const float> logits_;
  double log_sum_;
  Token greedy_;
};

struct TokenScores {
  float nll = 0;           // nats: -log softmax(logits)[target], log-softmax in f32 over an f64 sum
  float kl = 0;            // nats: KL(baseline || this row)
  std::int32_t rank = 0;   // tokens ahead of the target; of equal logits the lower index is ahead
  std::uint8_t agree = 1;  // the row and the baseline's have the same greatest token
};

// Scores rows of one position: the baseline's first. logits, baseline [vocab]. Not thread-safe.
class RowScorer {
 public:
  RowScorer(Index vocab, const Compute& compute);
  void set_baseline(std::span<const float> logits);
  // Safe to call from several threads with scratch [vocab] of their own.
  TokenScores score(std::span<const float> logits, Token target, std::span<float> scratch) const;

 private:
  struct Summary {
    double log_sum;  // log of the sum of exponentials
    std::size_t best;
  };
  Summary summary(std::span<const float> logits, std::span<float> exponentials) const;

  const Compute compute_;
  std::vector<float> logits_, probability_;
  Summary baseline_ = {};
};

}  // namespace plait::ablate
