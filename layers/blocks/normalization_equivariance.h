// normalization_equivariance: a pair of nodes around a network that makes it follow shifts and scales of its
// signal (normalization_equivariance.md).
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind normalization_equivariance_kind();

}  // namespace plait
