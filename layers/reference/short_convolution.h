// Settings, tensors and twin of `short_convolution` (layers/blocks/short_convolution.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct ShortConvolutionSettings {
  enum class Activation { none, silu };
  Index width = 0, kernel = 4;
  bool bias = false;
  Activation activation = Activation::none;
};

ShortConvolutionSettings read_short_convolution(Config& config);  // ends with config.finish()
std::vector<TensorSpec> short_convolution_tensors(const ShortConvolutionSettings& settings);
std::shared_ptr<Twin> make_short_convolution_twin(Config& config, const Parameters& parameters);

}  // namespace plait
