// The second engine: for every kind its twin, in double precision, plain loops over the paper's formula. A twin shares
// nothing with the fast kind but its config and its parameters (architecture section 6).
#pragma once

#include <span>

#include "runtime/base/tensor.h"
#include "runtime/base/view.h"

namespace plait {

class Twin {
 public:
  virtual ~Twin() = default;
  // One whole sequence from position 0. inputs[i] [tokens, width_i]; output [tokens, width]; tokens [tokens].
  virtual void run(std::span<const View<const double>> inputs, std::span<const Token> tokens,
                   View<double> output) const = 0;
};

}  // namespace plait
