// The two evaluations of polynomial attention behind one face: a state of constant size with the rows since
// the last chunk boundary (recurrent), or a cache of all keys and values (quadratic). See
// polynomial_attention.md.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "layers/reference/polynomial_attention.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/layer.h"

namespace plait {

// Rows of a batch. Keys of rows that write nothing and log decays of rows that forget nothing are zeros.
struct PolynomialRows {
  View<float> q;                         // [rows, num_heads * head_dim], times logit_scale
  View<float> k;                         // [rows, num_kv_heads * head_dim]
  View<float> v;                         // [rows, num_kv_heads * value_head_dim]
  View<float> decay;                     // [rows, num_heads] log decays; no columns without decay
  View<float> near_q = {}, near_k = {};  // [rows, heads * near_dim], if there is one
};

class PolynomialCore {
 public:
  virtual ~PolynomialCore() = default;
  virtual std::span<const Field> fields() const = 0;
  // Takes the segments' rows into their states. out [rows, num_heads * value_head_dim]
  virtual void run(std::span<const Segment> segments, const PolynomialRows& rows, View<float> out,
                   const Compute& compute) const = 0;
  virtual void fold(State& state, Index boundary, const Compute& compute) const = 0;
  // What edits of the state this evaluation knows.
  virtual SiteSpec state_site() const = 0;
};

// state: the operators on rows, which every evaluation knows.
SiteSpec row_state_site(Index heads);

std::unique_ptr<PolynomialCore> make_recurrent_polynomial(const PolynomialAttentionSettings& settings,
                                                          const Grids& grids);
std::unique_ptr<PolynomialCore> make_quadratic_polynomial(const PolynomialAttentionSettings& settings,
                                                          const Grids& grids);

// What both share. In place: q.k -> (q.k)^degree
void raise(Index degree, float* s, Index count, const Kernels& k);

// The factor on a row's sum of weighted values.
class PolynomialScale {
 public:
  explicit PolynomialScale(const PolynomialAttentionSettings& settings);
  bool needs_mass() const { return denominator_ != PolynomialAttentionSettings::Denominator::none; }
  // mass: sum of the row's weights
  float factor(Index position, Index head, float mass, const Kernels& k) const;

 private:
  PolynomialAttentionSettings::Denominator denominator_;
  PolynomialAttentionSettings::ScaleMode mode_;
  float eps_;
  std::vector<float> c_;  // [num_heads]
};

}  // namespace plait
