// Small random models of the shapes studies meet.
#pragma once

#include <memory>

#include "runtime/run/model.h"

namespace plait::testing {

// 12 blocks of a mixer and an MLP: three of gated_delta_net, one of softmax_attention, and so on.
std::shared_ptr<const Model> sequential_model();
// 6 blocks: softmax_attention (x 0.5) beside mamba2 (x 0.25), then an MLP.
std::shared_ptr<const Model> parallel_model();
// The same written out, with `scale` nodes instead of factors of the add.
std::shared_ptr<const Model> scaled_model();

}  // namespace plait::testing
