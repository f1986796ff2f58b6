// Settings, tensors and twin of `add` (layers/blocks/add.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct AddSettings {
  Index width = 0;
  std::vector<double> scales;  // one per input port
};

AddSettings read_add(Config& config);  // ends with config.finish()
std::vector<TensorSpec> add_tensors(const AddSettings& settings);
std::shared_ptr<Twin> make_add_twin(Config& config, const Parameters& parameters);

}  // namespace plait
