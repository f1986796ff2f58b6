// Settings, tensors and twin of `sinkhorn_attention` (layers/attention/sinkhorn_attention.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/projection.h"
#include "layers/reference/twin.h"

namespace plait {

struct SinkhornAttentionSettings {
  ProjectionSettings projection;
  double scale = 1;
  Index max_iter = 3;
  bool output_bias = false;
};

SinkhornAttentionSettings read_sinkhorn_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> sinkhorn_attention_tensors(const SinkhornAttentionSettings& settings);
std::shared_ptr<Twin> make_sinkhorn_attention_twin(Config& config, const Parameters& parameters);

namespace reference {

// logits [n, n] -> n times the plan between uniform marginals after max_iter half steps, rows first: rows of
// the result sum to 1 after an odd number, columns after an even one. arXiv 2110.11773, algorithm 1 with
// epsilon 1.
std::vector<double> sinkhorn_weights(std::vector<double> logits, Index n, Index max_iter);

}  // namespace reference
}  // namespace plait
