// Linear attention with feature maps. See linear_attention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind linear_attention_kind();

}  // namespace plait
