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
