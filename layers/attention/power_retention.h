// Attention with even powers of q.k and a gated state of constant size. See power_retention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind power_retention_kind();

}  // namespace plait
