// y = factor * x. See scale.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind scale_kind();

}  // namespace plait
