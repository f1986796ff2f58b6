// Rotary position embedding (Su et al., arXiv 2104.09864): pairs of channels of a head turn by position times
// a frequency. Angles are f64, so long contexts keep their phases. See rope.md.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "layers/reference/rope.h"
#include "runtime/base/numerics.h"
#include "runtime/base/view.h"

namespace plait {

class Rope {
 public:
  // `frequencies` are computed without libm, so they are the same on every machine.
  explicit Rope(const RopeSettings& settings);

  Index dim() const { return 2 * static_cast<Index>(frequencies_.size()); }
  std::span<const double> frequencies() const { return frequencies_; }  // [dim / 2], radians per position
  float attention_factor() const { return attention_factor_; }

  // Rotates in place the first dim() channels of every head. rows [n, heads * head_dim]; row r stands at
  // first_position + r. Positions may be any number, also negative or fractional.
  void apply(View<float> rows, Index heads, double first_position, const Compute& compute) const;
  // The same with a position for each row. positions [n]
  void apply(View<float> rows, Index heads, std::span<const Index> positions, const Compute& compute) const;

 private:
  void apply_each(View<float> rows, Index heads, const std::function<double(Index)>& position_of,
                  const Compute& compute) const;
  void rotate(const float* cosine, const float* sine, float* head) const;

  RopeSettings::Layout layout_;
  std::vector<double> frequencies_;
  float attention_factor_ = 1;
};

}  // namespace plait
