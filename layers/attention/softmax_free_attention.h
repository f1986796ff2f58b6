// softmax_free_attention: a Gaussian kernel between tokens, approximated through landmarks
// (softmax_free_attention.md).
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind softmax_free_attention_kind();

}  // namespace plait
