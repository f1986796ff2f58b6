// Settings, tensors and twin of `linear_attention` (layers/recurrent/linear_attention.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/feature_attention.h"

namespace plait {

struct LinearAttentionSettings : FeatureAttentionSettings {
  enum class Features { elu, relu, identity, taylor2, positive_random_features };
  Features feature_map = Features::elu;
  Index random_features = 0;  // M
};

LinearAttentionSettings read_linear_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> linear_attention_tensors(const LinearAttentionSettings& settings);
std::shared_ptr<Twin> make_linear_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
