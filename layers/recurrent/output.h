// What ends most recurrent mixers: an RMS norm per head, an output gate (norm then gate), the output
// projection.
#pragma once

#include <span>
#include <vector>

#include "layers/reference/output_gate.h"
#include "runtime/base/tensor.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/layer.h"

namespace plait {

// o := o * f(gate x + bias), column by column. Site: gate.
class GateColumns {
 public:
  GateColumns() = default;
  // Tensors gate [heads * width, in] and gate_bias [heads * width], as the gate asks.
  GateColumns(const Parameters& parameters, const OutputGate& gate, Index heads);

  bool on() const { return settings_.on(); }
  // x [rows, in], o [rows, heads * width]
  void apply(View<const float> x, View<float> o, std::span<const Segment> segments,
             const Compute& compute) const;

 private:
  OutputGate settings_;
  Index heads_ = 0;
  Linear weight_;
  std::vector<float> bias_;
};

class GatedOutput {
 public:
  struct Settings {
    Index heads = 0, width = 0;  // of one head
    OutputGate gate;
    bool norm = true;
    float eps = 0;
    bool bias = false;  // of the output projection
  };

  GatedOutput() = default;
  // Tensors o [out, heads * width] and, as the settings say, o_bias [out], norm [width] and those of the
  // gate.
  GatedOutput(const Parameters& parameters, const Settings& settings);

  Index out() const { return output_.out(); }
  bool gated() const { return gate_.on(); }

  // y = o_proj(norm(o) * f(gate x)) + bias. x [rows, in], o [rows, heads * width] (overwritten), y
  // [rows, out]. Applies the edits state/{zero, no_read}, head and gate.
  void run(View<const float> x, View<float> o, std::span<const Segment> segments, View<float> y,
           const Compute& compute) const;

 private:
  Settings settings_;
  GateColumns gate_;
  Linear output_;
  std::vector<float> gain_, bias_;
};

}  // namespace plait
