// MesaNet: what a row reads is the prediction of a ridge regression of the values on the keys. See
// mesa_net.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind mesa_net_kind();

}  // namespace plait
