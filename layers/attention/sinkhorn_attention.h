// sinkhorn_attention: attention whose weights come near a doubly stochastic matrix (sinkhorn_attention.md).
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind sinkhorn_attention_kind();

}  // namespace plait
