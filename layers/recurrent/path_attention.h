// PaTH attention: softmax attention whose keys and queries meet through data-dependent Householder-like
// factors. See path_attention.md.
#pragma once

#include "runtime/run/registry.h"

namespace plait {

Kind path_attention_kind();

}  // namespace plait
