// Settings, tensors and twin of `path_attention` (layers/recurrent/path_attention.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/projection.h"
#include "layers/reference/twin.h"

namespace plait {

struct PathAttentionSettings {
  ProjectionSettings projection;  // without rope
  double scale = 1;               // of the logits, resolved
  Index w_rank = 32;              // of the projection to w; 0 = a full matrix
  Index conv = 3;                 // kernel of the convolution on w; 0 = none, and no silu
  bool forget_gate = false;
};

PathAttentionSettings read_path_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> path_attention_tensors(const PathAttentionSettings& settings);
std::shared_ptr<Twin> make_path_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
