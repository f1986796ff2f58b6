// Settings, tensors and twin of `rebased` (layers/recurrent/rebased.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/feature_attention.h"

namespace plait {

struct RebasedSettings : FeatureAttentionSettings {
  // A layer norm of all heads' queries and one of all heads' keys, one of each head that all share, nothing,
  // or the gains of the first alone, without biases or with them.
  enum class QkNorm { layer_wide, per_head_shared, none, scale, scale_and_shift };
  QkNorm qk_norm = QkNorm::layer_wide;
  bool normalises_queries() const {
    return qk_norm == QkNorm::layer_wide || qk_norm == QkNorm::per_head_shared;
  }
  double qk_norm_eps = 1e-5;
};

RebasedSettings read_rebased(Config& config);  // ends with config.finish()
std::vector<TensorSpec> rebased_tensors(const RebasedSettings& settings);
std::shared_ptr<Twin> make_rebased_twin(Config& config, const Parameters& parameters);

}  // namespace plait
