// Gated MLP: y = down(act(gate x) * up x). See gated_mlp.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind gated_mlp_kind();

}  // namespace plait
