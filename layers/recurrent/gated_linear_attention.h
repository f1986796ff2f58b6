// Gated linear attention: a matrix state that decays by a gate per key channel. See
// gated_linear_attention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind gated_linear_attention_kind();

}  // namespace plait
