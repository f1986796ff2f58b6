// The rotary embedding a node's "rope" object asks for: theta, partial dims, both layouts, linear, llama3 and
// yarn scaling. See rope.md.
#pragma once

#include "layers/reference/rope.h"
#include "runtime/kernels/rotary.h"

namespace plait {

Rotary make_rope(const RopeSettings& settings);

}  // namespace plait
