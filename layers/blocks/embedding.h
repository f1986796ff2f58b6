// Token embedding: y = multiplier * weight[token]. See embedding.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind embedding_kind();

}  // namespace plait
