// global_pathway: one pooled value of the sequence, gated into every token (global_pathway.md).
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind global_pathway_kind();

}  // namespace plait
