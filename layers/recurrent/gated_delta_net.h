// Gated DeltaNet: a delta rule whose state decays by a gate per value head. See gated_delta_net.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind gated_delta_net_kind();

}  // namespace plait
