// Rotary position embedding (Su et al., arXiv 2104.09864): the i-th pair of channels of a head turns by
// position times the i-th frequency. Angles are f64, so long contexts keep their phases.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "runtime/base/numerics.h"
#include "runtime/base/view.h"

namespace plait {

// Natural logarithm of x > 0 and exponential, a few ulp from the truth. libm differs between machines in its
// last bit, and what a layer computes from its settings reaches the logits; these use only operations that
// IEEE 754 fixes.
double portable_log(double x);
double portable_exp(double x);

// theta^(-2 i / dim) for i < dim / 2, radians per position.
std::vector<double> rotary_frequencies(double theta, Index dim);

class Rotary {
 public:
  // Pairs: channels i and i + dim / 2, or 2 i and 2 i + 1, of the first dim = 2 * frequencies channels of a
  // head.
  enum class Layout { half_split, interleaved };

  // `factor` multiplies sine and cosine.
  explicit Rotary(std::vector<double> frequencies, Layout layout = Layout::half_split, float factor = 1);

  Index dim() const { return 2 * static_cast<Index>(frequencies_.size()); }
  std::span<const double> frequencies() const { return frequencies_; }
  float factor() const { return factor_; }

  // Rotates in place the first dim() channels of every head. rows [n, heads * head_dim]; row r stands at
  // first_position + r. Positions may be any number, also negative or fractional; |angle| <= 2^40.
  void apply(View<float> rows, Index heads, double first_position, const Compute& compute) const;
  // The same with a position for each row. positions [n]
  void apply(View<float> rows, Index heads, std::span<const Index> positions, const Compute& compute) const;

 private:
  void apply_each(View<float> rows, Index heads, const std::function<double(Index)>& position_of,
                  const Compute& compute) const;
  void rotate(const float* cosine, const float* sine, float* head) const;

  std::vector<double> frequencies_;
  Layout layout_;
  float factor_;
};

}  // namespace plait
