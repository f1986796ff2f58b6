// Settings, tensors and twin of `wall_attention` (layers/recurrent/wall_attention.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/projection.h"
#include "layers/reference/twin.h"

namespace plait {

struct WallAttentionSettings {
  ProjectionSettings projection;  // without rope
  double scale = 1;               // of the logits, resolved
  Index window = 0;               // keys a row sees, the nearest; 0 = all
  bool sink = false;              // a learned logit without a value beside each row's
  bool forget_gate = false;       // a decay per head besides, added to the logits
};

WallAttentionSettings read_wall_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> wall_attention_tensors(const WallAttentionSettings& settings);
std::shared_ptr<Twin> make_wall_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
