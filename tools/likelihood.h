// Likelihood of tokens under logits, and the sizes of the pieces a text is fed in.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/base/view.h"

namespace plait {

struct TokenScore {
  double nll;  // nats: log of the sum over the vocabulary minus the target's logit, summed in f64
  bool top1;   // the target has the greatest logit (of equal ones the lowest id counts as the greatest)
};

// One row of logits [vocab] whose normaliser is taken once, for any number of tokens. Borrows the row.
class LogSoftmax {
 public:
  explicit LogSoftmax(std::span<const float> logits);
  TokenScore score(Token target) const;     // the row stands before `target`
  Token greedy() const { return greedy_; }  // of equal logits the lowest id

 private:
  std::span<const float> logits_;
  Token greedy_;
  double log_sum_;  // of the exponentials
};

// logits [vocab] before `target`.
TokenScore score_token(std::span<const float> logits, Token target);

struct Mean {
  double value = 0;
  double standard_error = 0;  // sample standard deviation / sqrt(n); 0 for n < 2
};
Mean mean_of(std::span<const double> values);

// Feed sizes, repeated cyclically: "1", "7,64,1", "all".
class Split {
 public:
  Split() = default;                           // all
  explicit Split(const std::string& pattern);  // throws Error on anything but positive numbers or "all"
  // Size of feed number `feed` when `left` tokens are left.
  Index size(std::size_t feed, Index left) const;

 private:
  std::vector<Index> sizes_;  // empty = all
};

}  // namespace plait
