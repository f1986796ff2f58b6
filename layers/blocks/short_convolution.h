// Depthwise causal convolution over time with a short kernel. See short_convolution.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind short_convolution_kind();

}  // namespace plait
