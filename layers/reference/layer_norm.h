// Settings, tensors and twin of `layer_norm` (layers/blocks/layer_norm.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct LayerNormSettings {
  Index width = 0;
  double eps = 1e-5;
  bool bias = true;
};

LayerNormSettings read_layer_norm(Config& config);  // ends with config.finish()
std::vector<TensorSpec> layer_norm_tensors(const LayerNormSettings& settings);
std::shared_ptr<Twin> make_layer_norm_twin(Config& config, const Parameters& parameters);

}  // namespace plait
