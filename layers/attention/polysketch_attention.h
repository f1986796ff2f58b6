// Attention by powers of q.k through a sketch of fixed size. See polysketch_attention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind polysketch_attention_kind();

}  // namespace plait
