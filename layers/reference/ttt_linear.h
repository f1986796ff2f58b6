// Settings, tensors and twin of `ttt_linear` (layers/recurrent/ttt_linear.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/output_gate.h"
#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct TttLinearSettings {
  Index width = 0;
  Index num_heads = 0, head_dim = 0;
  Index mini_batch = 16;  // tokens whose gradients are taken at the same weights: part of the model
  double base_lr = 1;
  double rope_theta = 10000;  // 0 = no rotation
  Index conv = 0;             // kernel of conv_q and conv_k on a shared projection; 0 = separate projections
  OutputGate gate;
  double post_norm_eps = 1e-6, ln_eps = 1e-6;

  Index inner() const { return num_heads * head_dim; }
};

TttLinearSettings read_ttt_linear(Config& config);  // ends with config.finish()
std::vector<TensorSpec> ttt_linear_tensors(const TttLinearSettings& settings);
std::shared_ptr<Twin> make_ttt_linear_twin(Config& config, const Parameters& parameters);

}  // namespace plait
