// Falcon-H1: Mamba-2 and softmax attention side by side, with constant multipliers.
#pragma once

#include "weights/families/family.h"

namespace plait {

Family falcon_h1_family();

}  // namespace plait
