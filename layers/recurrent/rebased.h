// Linear attention with weights (q.k)^2 of normed queries and keys. See rebased.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind rebased_kind();

}  // namespace plait
