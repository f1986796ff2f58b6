// The output gate of recurrent mixers, o := o * f(gate x + bias) column by column: its settings, tensors and
// double-precision form (fast: layers/recurrent/output.h).
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "layers/reference/recurrence.h"
#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

struct OutputGate {
  enum class Function { none, silu, sigmoid, gelu_tanh };
  Function function = Function::none;
  bool bias = false;  // sigmoid with it: capacity-controlled attention, arXiv 2604.17324

  bool on() const { return function != Function::none; }
};

// Keys gate, one of `functions` by their names here, the first being the default, and gate_bias; does not
// call finish().
OutputGate read_output_gate(Config& config, std::initializer_list<const char*> functions);
// Adds gate [columns, width] and gate_bias [columns] as the gate asks; `text` says in words what columns are.
void add_gate_tensors(const OutputGate& gate, Index columns, Index width, const std::string& text,
                      std::vector<TensorSpec>& specs);

namespace reference {

// x [rows, width], o [rows, columns]
void apply_gate(const OutputGate& gate, const Weights& weights, View<const double> x, Rows& o);

}  // namespace reference
}  // namespace plait
