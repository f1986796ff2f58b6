// What ends most recurrent mixers: an RMS norm per head, an output gate (norm then gate), the output
// projection.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/layer.h"

namespace plait {

class GatedOutput {
 public:
  enum class Gate { none, silu, sigmoid };
  struct Settings {
    Index heads = 0, width = 0;  // of one head
    Gate gate = Gate::none;
    bool norm = true;
    float eps = 0;
    bool bias = false;  // of the output projection
  };

  GatedOutput() = default;
  // Tensors o [out, heads * width] and, as the settings say, o_bias [out], norm [width], gate [heads * width,
  // in].
  GatedOutput(const Parameters& parameters, const Settings& settings);

  Index out() const { return output_.out(); }
  bool gated() const { return settings_.gate != Gate::none; }

  // y = o_proj(norm(o) * gate(gate_proj x)) + bias. x [rows, in], o [rows, heads * width] (overwritten), y
  // [rows, out]. Applies the edits state/{zero, no_read}, head and gate.
  void run(View<const float> x, View<float> o, std::span<const Segment> segments, View<float> y,
           const Compute& compute) const;

 private:
  void apply_gate(View<const float> x, View<float> o, std::span<const Segment> segments,
                  const Compute& compute) const;

  Settings settings_;
  Linear gate_, output_;
  std::vector<float> gain_, bias_;
};

}  // namespace plait
