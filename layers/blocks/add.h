// Sum of the input ports in port order, each with its own scale. See add.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind add_kind();

}  // namespace plait
