// NAtS-L: every block of tokens is remembered by softmax attention or by a gated delta rule, head by head.
// See nats_l.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind nats_l_kind();

}  // namespace plait
