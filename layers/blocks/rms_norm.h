// Root-mean-square norm: y = x / sqrt(mean x^2 + eps) * gain. See rms_norm.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind rms_norm_kind();

}  // namespace plait
