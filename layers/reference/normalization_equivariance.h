// Settings and twin of `normalization_equivariance` (layers/blocks/normalization_equivariance.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

struct NormalizationEquivarianceSettings {
  enum class Form { direct, residual, scale_only };
  Index width = 0;
  bool closes = false;  // the node behind the network: inputs signal, network's output
  Form form = Form::direct;
};

// Added to the root mean square of scale_only before it divides.
inline constexpr double kScaleOnlyEps = 1e-5;

NormalizationEquivarianceSettings read_normalization_equivariance(
    Config& config);  // ends with config.finish()
std::shared_ptr<Twin> make_normalization_equivariance_twin(Config& config, const Parameters& parameters);

}  // namespace plait
