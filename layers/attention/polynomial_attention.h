// Attention with weights (q.k)^p: no exponential, an optional decay and denominator, and therefore an exact
// state of constant size. See polynomial_attention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind polynomial_attention_kind();

}  // namespace plait
