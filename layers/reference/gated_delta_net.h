// Settings, tensors and twin of `gated_delta_net` (layers/recurrent/gated_delta_net.md).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "layers/reference/curvature_conditioned_query.h"
#include "layers/reference/output_gate.h"
#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct GatedDeltaNetSettings {
  Index width = 0, chunk = 0;
  Index num_heads = 0, num_value_heads = 0;  // key heads and value heads
  Index head_dim = 0, value_head_dim = 0;
  Index conv = 4;  // kernel; 0 = none
  bool negative_eigenvalues = false;
  OutputGate gate;
  double norm_eps = 1e-5;
  double scale = 1;  // of the queries, resolved
  std::optional<QuerySettings> query;
};

GatedDeltaNetSettings read_gated_delta_net(Config& config);  // ends with config.finish()
std::vector<TensorSpec> gated_delta_net_tensors(const GatedDeltaNetSettings& settings);
std::shared_ptr<Twin> make_gated_delta_net_twin(Config& config, const Parameters& parameters);

}  // namespace plait
