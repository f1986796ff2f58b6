// Settings, tensors and twin of `nats_l` (layers/recurrent/nats_l.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct NatsLSettings {
  Index width = 0;
  Index num_heads = 0, head_dim = 0, value_head_dim = 0;  // of the delta rule, and of the router
  Index num_attention_heads = 0;                          // a multiple of num_heads
  Index block = 64;                                       // tokens that are remembered one way
  Index conv = 4;                                         // kernel; 0 = none
  bool negative_eigenvalues = false;
  bool decay_for_non_gdn_blocks = true;
  bool qk_norm = true;  // of the attention's queries and keys
  double norm_eps = 1e-5;

  Index group() const { return num_attention_heads / num_heads; }  // attention heads of one router head
  // Widths of an attention head: the channels of a delta head, cut in `group` parts.
  Index attention_key() const { return head_dim / group(); }
  Index attention_value() const { return value_head_dim / group(); }
};

NatsLSettings read_nats_l(Config& config);  // ends with config.finish()
std::vector<TensorSpec> nats_l_tensors(const NatsLSettings& settings);
std::shared_ptr<Twin> make_nats_l_twin(Config& config, const Parameters& parameters);

}  // namespace plait
