// Settings, tensors and twin of `delta_net` (layers/recurrent/delta_net.md).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "layers/reference/curvature_conditioned_query.h"
#include "layers/reference/output_gate.h"
#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct DeltaNetSettings {
  enum class Activation { silu, relu, elu, identity };
  enum class Norm { l2, sum, none };
  Index width = 0, chunk = 0;
  Index num_heads = 0, head_dim = 0, value_head_dim = 0;
  Index conv = 4;                               // kernel; 0 = none
  Activation qk_activation = Activation::silu;  // values always take silu
  Norm qk_norm = Norm::l2;
  bool beta = true;                   // false: strength 1
  bool negative_eigenvalues = false;  // strength times 2
  OutputGate gate;
  double norm_eps = 1e-5;
  double scale = 1;  // of the queries, resolved
  std::optional<QuerySettings> query;
};

DeltaNetSettings read_delta_net(Config& config);  // ends with config.finish()
std::vector<TensorSpec> delta_net_tensors(const DeltaNetSettings& settings);
std::shared_ptr<Twin> make_delta_net_twin(Config& config, const Parameters& parameters);

}  // namespace plait
