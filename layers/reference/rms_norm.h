// Settings, tensors and twin of `rms_norm` (layers/blocks/rms_norm.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct RmsNormSettings {
  enum class Form { plain, one_plus };  // gain w, or 1 + w
  Index width = 0;
  double eps = 1e-6;
  Form form = Form::plain;
};

RmsNormSettings read_rms_norm(Config& config);  // ends with config.finish()
std::vector<TensorSpec> rms_norm_tensors(const RmsNormSettings& settings);
std::shared_ptr<Twin> make_rms_norm_twin(Config& config, const Parameters& parameters);

}  // namespace plait
