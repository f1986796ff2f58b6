#include "layers/recurrent/output.h"

#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {

namespace {

Kernels::Map map_of(OutputGate::Function function, const Kernels& k) {
  if (function == OutputGate::Function::silu) return k.silu;
  return function == OutputGate::Function::sigmoid ? k.sigmoid : k.gelu_tanh;
}

}  // namespace

GateColumns::GateColumns(const Parameters& parameters, const OutputGate& gate, Index heads)
    : settings_(gate), heads_(heads) {
  if (gate.on()) weight_ = Linear(parameters.tensor("gate"));
  if (gate.bias) bias_ = to_float(parameters.tensor("gate_bias"));
}

void GateColumns::apply(View<const float> x, View<float> o, std::span<const Segment> segments,
                        const Compute& compute) const {
  if (!on()) return;
  const Kernels& k = kernels(compute);
  Arena::Scope scope(scratch());
  const View<float> factors = scope.rows(x.rows, o.cols);
  for_each_block(segments, [&](Index first, Index rows) {
    const View<float> block = factors.slice_rows(first, rows);
    weight_.run(x.slice_rows(first, rows), block, compute);
    if (!bias_.empty()) add_bias(bias_, block, compute);
    map_rows(map_of(settings_.function, k), block, block, compute);
  });
  edit_gates(segments, heads_, factors);
  for_each_block(segments, [&](Index first, Index rows) {
    const View<float> block = o.slice_rows(first, rows);
    zip_rows(k.multiply, block, factors.slice_rows(first, rows), block, compute);
  });
}

GatedOutput::GatedOutput(const Parameters& parameters, const Settings& settings)
    : settings_(settings), gate_(parameters, settings.gate, settings.heads), output_(parameters.tensor("o")) {
  if (settings.norm) gain_ = to_float(parameters.tensor("norm"));
  if (settings.bias) bias_ = to_float(parameters.tensor("o_bias"));
}

void GatedOutput::run(View<const float> x, View<float> o, std::span<const Segment> segments, View<float> y,
                      const Compute& compute) const {
  edit_reads(segments, settings_.heads, o);
  edit_heads(segments, settings_.heads, o, HeadEdits::but_scale);
  if (settings_.norm)
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = o.slice_rows(first, rows);
      rms_norm(block, settings_.width, settings_.eps, gain_, block, compute);
    });
  gate_.apply(x, o, segments, compute);
  scale_heads(segments, settings_.heads, o, compute);
  for_each_block(segments, [&](Index first, Index rows) {
    output_.run(o.slice_rows(first, rows), y.slice_rows(first, rows), compute);
    if (!bias_.empty()) add_bias(bias_, y.slice_rows(first, rows), compute);
  });
}

}  // namespace plait
