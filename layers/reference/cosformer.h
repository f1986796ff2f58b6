// Settings, tensors and twin of `cosformer` (layers/recurrent/cosformer.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/feature_attention.h"

namespace plait {

struct CosformerSettings : FeatureAttentionSettings {
  enum class Feature { relu, elu_plus_one };
  Feature feature = Feature::relu;
  Index reach = 0;  // M, tokens over which a weight falls to 0
};

CosformerSettings read_cosformer(Config& config);  // ends with config.finish()
std::shared_ptr<Twin> make_cosformer_twin(Config& config, const Parameters& parameters);

}  // namespace plait
