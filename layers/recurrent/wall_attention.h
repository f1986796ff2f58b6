// Wall attention: softmax attention whose logits decay channel by channel with the distance. See
// wall_attention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind wall_attention_kind();

}  // namespace plait
