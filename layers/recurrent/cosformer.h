// Linear attention with cosine reweighting. See cosformer.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind cosformer_kind();

}  // namespace plait
