// Layer norm: y = (x - mean) / sqrt(var + eps) * gain + bias. See layer_norm.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind layer_norm_kind();

}  // namespace plait
