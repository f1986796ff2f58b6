// Settings, tensors and twin of `gated_linear_attention` (layers/recurrent/gated_linear_attention.md).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "layers/reference/curvature_conditioned_query.h"
#include "layers/reference/output_gate.h"
#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct GatedLinearAttentionSettings {
  Index width = 0, chunk = 0;
  Index num_heads = 0, num_kv_heads = 0;  // each key/value head has a state and decays
  Index head_dim = 0, value_head_dim = 0;
  Index decay_rank = 16;
  double decay_temperature = 16;
  OutputGate gate;
  double norm_eps = 1e-5;
  Index conv = 0;    // kernel; 0 = none
  double scale = 1;  // of the queries, resolved
  std::optional<QuerySettings> query;
};

GatedLinearAttentionSettings read_gated_linear_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> gated_linear_attention_tensors(const GatedLinearAttentionSettings& settings);
std::shared_ptr<Twin> make_gated_linear_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
