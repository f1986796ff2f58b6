// Settings, tensors and twin of `gated_mlp` (layers/blocks/gated_mlp.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct GatedMlpSettings {
  enum class Activation { silu, gelu_tanh, gelu, relu };
  Index width = 0, hidden = 0;
  Activation activation = Activation::silu;
  double gate_multiplier = 1;  // on the pre-activation
  double down_multiplier = 1;
  bool bias = false;
};

GatedMlpSettings read_gated_mlp(Config& config);  // ends with config.finish()
std::vector<TensorSpec> gated_mlp_tensors(const GatedMlpSettings& settings);
std::shared_ptr<Twin> make_gated_mlp_twin(Config& config, const Parameters& parameters);

}  // namespace plait
