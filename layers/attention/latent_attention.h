// Multi-head latent attention: keys and values of all heads are made of one cached latent. See
// latent_attention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind latent_attention_kind();

}  // namespace plait
