// Settings and twin of `based` (layers/recurrent/based.md).
#pragma once

#include <memory>

#include "layers/reference/feature_attention.h"

namespace plait {

FeatureAttentionSettings read_based(Config& config);  // ends with config.finish()
std::shared_ptr<Twin> make_based_twin(Config& config, const Parameters& parameters);

}  // namespace plait
