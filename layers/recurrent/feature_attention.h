// Attention by a feature map, a decayed sum without decay: what linear_attention and its thin relatives are
// but for their maps.
#pragma once

#include <memory>

#include "layers/recurrent/feature_maps.h"
#include "layers/reference/feature_attention.h"

namespace plait {

std::unique_ptr<Layer> make_feature_attention(const FeatureAttentionSettings& settings,
                                              std::unique_ptr<FeatureMap> map, const Parameters& parameters);

}  // namespace plait
