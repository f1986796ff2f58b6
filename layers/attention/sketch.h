// Queries and keys in front of the core of polynomial attention: the norms and sketches of
// polysketch_attention.
#pragma once

#include "layers/attention/polynomial_core.h"
#include "layers/attention/projection.h"
#include "layers/reference/polysketch_attention.h"

namespace plait {

class Sketch {
 public:
  Sketch(const PolysketchAttentionSettings& settings, const Parameters& parameters);

  // Whether there are rows of sketches; otherwise q and k are only normed.
  bool makes_rows() const { return s_.sketch != PolysketchAttentionSettings::Sketch::none; }
  // Norms q and k in place; q, k of `to` are sketches of them, or they themselves. Rows no segment covers are
  // garbage.
  void run(std::span<const Segment> segments, const Projected& rows, const PolynomialRows& to,
           const Compute& compute) const;

 private:
  struct Norm {
    std::vector<float> gain, bias;
  };
  struct Level {
    Norm norm;
    Linear up, down;
  };
  static Norm norm_of(const Parameters& parameters, const std::string& name);
  void normalise(View<float> x, const Norm& norm, const Compute& compute) const;
  // x [rows, heads * head_dim] -> y [rows, heads * r]
  void sketch(View<const float> x, View<float> y, const Compute& compute) const;
  void random(View<const float> x, View<float> y, const Compute& compute) const;
  void learned(View<const float> x, View<float> y, const Compute& compute) const;

  PolysketchAttentionSettings s_;
  Norm q_norm_, k_norm_;        // without gain: none
  std::vector<Linear> random_;  // both projections
  std::vector<Level> levels_;   // two of the first branch, two of the second
};

}  // namespace plait
