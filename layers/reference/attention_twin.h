// Twins that show the weights of their heads, for those who look inside a model (tools/probe).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/attention_options.h"
#include "layers/reference/twin.h"
#include "runtime/base/view.h"

namespace plait {

class AttentionTwin : public Twin {
 public:
  // What one query head sees of one sequence from position 0.
  struct Look {
    TwinRow row;
    const double* query = nullptr;  // [head_dim], as it meets the keys
    std::vector<double> logits;     // [row.keys.size()], behind all score options
    std::vector<double> weights;    // the same, of the normaliser: before what a readout makes of them
  };
  // A sequence's rows, projected once. Borrows the twin, not the input.
  class Sequence {
   public:
    virtual ~Sequence() = default;
    virtual Look look(Index token, Index head) const = 0;
    // The logits of a row whose products q.k are `products` [row.keys.size()].
    virtual std::vector<double> logits(const TwinRow& row, std::vector<double> products) const = 0;
    // Factors of the node's gate on its heads [heads out * value_head_dim]; ones without a gate.
    virtual std::vector<double> gates(Index token) const = 0;
  };
  // x [tokens, width], the node's input
  virtual std::unique_ptr<Sequence> open(View<const double> x) const = 0;
};

}  // namespace plait
