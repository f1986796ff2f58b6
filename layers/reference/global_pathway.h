// Settings, tensors and twin of `global_pathway` (layers/attention/global_pathway.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

struct GlobalPathwaySettings {
  enum class Gate { flat, hierarchical };
  Index width = 0, dim = 64;
  Gate gate = Gate::flat;
  bool causal = true;  // pooled over the tokens so far
  Index gate_rows() const { return gate == Gate::flat ? 1 : 3; }
};

GlobalPathwaySettings read_global_pathway(Config& config);  // ends with config.finish()
std::vector<TensorSpec> global_pathway_tensors(const GlobalPathwaySettings& settings);
std::shared_ptr<Twin> make_global_pathway_twin(Config& config, const Parameters& parameters);

}  // namespace plait
