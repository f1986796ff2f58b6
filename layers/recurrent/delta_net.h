// DeltaNet: a matrix state written by the delta rule. See delta_net.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind delta_net_kind();

}  // namespace plait
