#include "layers/attention/power_retention.h"

#include "layers/attention/polynomial_attention.h"
#include "layers/reference/power_retention.h"

namespace plait {

Kind power_retention_kind() {
  Kind kind;
  kind.key = "power_retention";
  kind.group = "attention";
  kind.summary = "attention with even powers of q.k whose past is a gated state of constant size";
  kind.source = "arXiv 2507.04239";
  kind.examples = {
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "rope": {"theta": 10000}})",
      R"({"num_heads": 2, "num_kv_heads": 1, "head_dim": 24, "value_head_dim": 40, "bias": false,
          "switch_over_seq_len": 32, "output_norm": true, "qk_norm": {"type": "layer"}})",
      R"({"num_heads": 3, "head_dim": 7, "degree": 4, "switch_over_seq_len": 20, "qk_norm": {}})"};
  kind.tensors = [](Config& config) { return polynomial_attention_tensors(read_power_retention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return make_polynomial_attention(read_power_retention(config), config.surroundings().grids, parameters);
  };
  kind.bound_factor = 32;  // degree 4 through the state, see the page
  kind.twin = make_power_retention_twin;
  return kind;
}

}  // namespace plait
