// Settings, tensors and twin of `polynomial_attention` (layers/attention/polynomial_attention.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/projection.h"
#include "layers/reference/twin.h"

namespace plait {

struct PolynomialAttentionSettings {
  enum class Denominator { none, sum, one_plus_sum };
  enum class ScaleMode { fixed, row };
  enum class Decay { none, scalar, grouped };  // scalar: one per query head; grouped: per key/value head
  enum class Gate { none, sigmoid };
  enum class Evaluation { recurrent, quadratic };

  ProjectionSettings projection;
  Index degree = 2;
  double logit_scale = 0;  // on q.k, before the power
  Denominator denominator = Denominator::none;
  double eps = 1e-6;                        // beside `sum`
  ScaleMode scale_mode = ScaleMode::fixed;  // without denominator: factor c, or 1 / sqrt(position + 1)
  std::vector<double> c = {1};              // one for all heads, or [num_heads]
  Decay decay = Decay::none;
  double decay_temperature = 16;
  Gate gate = Gate::none;
  bool gate_bias = false;
  Evaluation evaluation = Evaluation::recurrent;

  // What only power_retention sets (the grid: polysketch_attention, too).
  Index grid = 0;           // tokens between folds; 0 = the card's chunk
  double offset = 0;        // on |s_ij| of a chunk's own keys, before the power
  double relative_eps = 0;  // times the largest of a row's weights in its own chunk, added to their sum
  bool output_norm = false, output_bias = false;

  // What only polysketch_attention sets: keys of a row's own chunk weigh (q.k)^near_degree of other rows,
  // near_dim wide; 0 = of the same.
  Index near_dim = 0, near_degree = 4;
  Index decays() const {
    return decay == Decay::none ? 0 : decay == Decay::scalar ? projection.num_heads : projection.num_kv_heads;
  }
};

PolynomialAttentionSettings read_polynomial_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> polynomial_attention_tensors(const PolynomialAttentionSettings& settings);
std::shared_ptr<Twin> make_polynomial_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
