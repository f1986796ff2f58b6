// Output head: logits = softcap(multiplier * W x). See head.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind head_kind();

}  // namespace plait
