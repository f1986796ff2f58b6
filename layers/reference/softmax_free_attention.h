// Settings, tensors and twin of `softmax_free_attention` (layers/attention/softmax_free_attention.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

struct SoftmaxFreeAttentionSettings {
  Index width = 0, num_heads = 0, head_dim = 0;
  Index ratio = 0;       // side of a patch, each of which makes a landmark; 1 = the kernel itself
  Index grid_width = 0;  // tokens of a row of the grid; 0 = all lie in one row
  Index iterations = 20;
  bool normalised = false;
  double ridge = 0.01;  // without `normalised`
  Index conv = 0;       // side of the taps on the values; 0 = none
  bool bias = true;
  double eps = 1e-5;  // of the landmarks' norm

  // Rows of the grid a patch, or the taps, take.
  Index rows_of(Index side) const { return grid_width == 0 ? 1 : side; }
  Index patch_tokens() const { return ratio * rows_of(ratio); }
  // Tokens of a sequence in a row of the grid, and complete rows; what is left over makes no landmark.
  Index columns(Index tokens) const { return grid_width == 0 ? tokens : grid_width; }
  Index patches_across(Index tokens) const { return columns(tokens) / ratio; }
  Index landmarks(Index tokens) const {
    if (ratio == 1 || tokens == 0) return tokens;
    return tokens / columns(tokens) / rows_of(ratio) * patches_across(tokens);
  }
  // The i-th token of a patch.
  Index patch_token(Index tokens, Index patch, Index i) const {
    const Index across = patches_across(tokens);
    return (patch / across * rows_of(ratio) + i / ratio) * columns(tokens) + patch % across * ratio +
           i % ratio;
  }
};

SoftmaxFreeAttentionSettings read_softmax_free_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> softmax_free_attention_tensors(const SoftmaxFreeAttentionSettings& settings);
std::shared_ptr<Twin> make_softmax_free_attention_twin(Config& config, const Parameters& parameters);

namespace reference {

// e^(-|x_a - y_b|^2 / 2) for rows x [n, d], y [m, d] -> [n, m]
std::vector<double> gaussian_kernel(const std::vector<double>& x, const std::vector<double>& y, Index d);
// Newton's iteration V := 2 V - V P V for the inverse of P = a + ridge I, a [n, n]: the authors' start, which
// is another one for SOFT++.
std::vector<double> newton_inverse(std::vector<double> a, Index n, double ridge, bool normalised,
                                   Index iterations);

}  // namespace reference
}  // namespace plait
