// Qwen3.5, the text part: Gated DeltaNet and gated softmax attention.
#pragma once

#include "weights/families/family.h"

namespace plait {

Family qwen3_5_family();

}  // namespace plait
