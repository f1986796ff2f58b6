// Linear attention with the second-order Taylor features of exp. See based.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind based_kind();

}  // namespace plait
