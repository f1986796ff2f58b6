// Qwen2 and Qwen2.5: softmax attention with biases.
#pragma once

#include "weights/families/family.h"

namespace plait {

Family qwen2_family();

}  // namespace plait
