// Any plait model: its card as configuration, its tensors under plait's names.
#pragma once

#include "weights/families/family.h"

namespace plait {

Family plait_card_family();

}  // namespace plait
