// Settings, tensors and twin of `linear_attention` (layers/recurrent/linear_attention.md).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "layers/reference/curvature_conditioned_query.h"
#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct LinearAttentionSettings {
  enum class Features { elu, relu, identity, taylor2 };
  Index width = 0, chunk = 0;
  Index num_heads = 0, num_kv_heads = 0;  // each key/value head has a state
  Index head_dim = 0, value_head_dim = 0;
  Features feature_map = Features::elu;
  bool normalise = true;
  double eps = 1e-10;  // of the normaliser
  bool output_norm = false;
  double norm_eps = 1e-5;
  double scale = 1;  // of the queries, resolved
  std::optional<QuerySettings> query;

  Index features() const {  // width of a head after the feature map
    return feature_map == Features::taylor2 ? 1 + head_dim + head_dim * (head_dim + 1) / 2 : head_dim;
  }
};

LinearAttentionSettings read_linear_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> linear_attention_tensors(const LinearAttentionSettings& settings);
std::shared_ptr<Twin> make_linear_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
