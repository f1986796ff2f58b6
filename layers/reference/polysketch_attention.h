// Settings, tensors and twin of `polysketch_attention` (layers/attention/polysketch_attention.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/polynomial_attention.h"

namespace plait {

struct PolysketchAttentionSettings {
  enum class Sketch { random, learned, none };

  ProjectionSettings projection;
  Sketch sketch = Sketch::random;
  Index size = 32;     // r, columns of a sketched head
  bool mixed = false;  // keys of a row's own block by the exact power
  Index block = 0;     // tokens between folds; 0 = the card's chunk
  bool rescale = false;

  // Heads are normed by one module for queries and keys, two, or none.
  bool shared_norm() const { return sketch != Sketch::learned; }
  bool separate_norms() const { return sketch == Sketch::learned && mixed; }
  // What the core computes with: sketched heads, squared, or exact ones to the fourth power.
  PolynomialAttentionSettings core() const;
};

PolysketchAttentionSettings read_polysketch_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> polysketch_attention_tensors(const PolysketchAttentionSettings& settings);
std::shared_ptr<Twin> make_polysketch_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
