// Settings, tensors and twin of `latent_attention` (layers/attention/latent_attention.md).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "layers/reference/rope.h"
#include "layers/reference/twin.h"
#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

struct LatentAttentionSettings {
  Index width = 0;
  Index num_heads = 0;
  Index qk_nope_head_dim = 0, qk_rope_head_dim = 0, value_head_dim = 0;
  Index q_lora_rank = 0;  // 0: queries are one product of the input
  Index kv_lora_rank = 0;
  std::optional<RopeSettings> rope;  // of the last qk_rope_head_dim columns of a query and of the shared key
  double scale = 0;                  // on a logit
  double norm_eps = 0;
  Index gate_width = 0;      // factors per head: 0, 1 or value_head_dim
  DType cache = DType::f32;  // what cached rows are rounded to

  Index query_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  // Columns of a cached row: the normed latent, then the shared key.
  Index cached_width() const { return kv_lora_rank + qk_rope_head_dim; }
};

LatentAttentionSettings read_latent_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> latent_attention_tensors(const LatentAttentionSettings& settings);
std::shared_ptr<Twin> make_latent_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
