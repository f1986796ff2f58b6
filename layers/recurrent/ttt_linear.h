// TTT-Linear: a recurrence whose state is a linear model trained on the sequence. See ttt_linear.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind ttt_linear_kind();

}  // namespace plait
