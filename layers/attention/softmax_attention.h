// Softmax attention over a cache of keys and values, in five stages: projection, score, normaliser, readout,
// gate. See softmax_attention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind softmax_attention_kind();

}  // namespace plait
