// Mamba-2: a state-space layer as a decayed sum with B, C for key and query. See mamba2.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind mamba2_kind();

}  // namespace plait
