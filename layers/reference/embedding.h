// Settings, tensors and twin of `embedding` (layers/blocks/embedding.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct EmbeddingSettings {
  Index vocab = 0, width = 0;
  double multiplier = 1;
};

EmbeddingSettings read_embedding(Config& config);  // ends with config.finish()
std::vector<TensorSpec> embedding_tensors(const EmbeddingSettings& settings);
std::shared_ptr<Twin> make_embedding_twin(Config& config, const Parameters& parameters);

}  // namespace plait
