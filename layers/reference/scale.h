// Settings, tensors and twin of `scale` (layers/blocks/scale.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct ScaleSettings {
  Index width = 0;
  double factor = 1;
};

ScaleSettings read_scale(Config& config);  // ends with config.finish()
std::vector<TensorSpec> scale_tensors(const ScaleSettings& settings);
std::shared_ptr<Twin> make_scale_twin(Config& config, const Parameters& parameters);

}  // namespace plait
