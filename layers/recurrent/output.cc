#include "layers/recurrent/output.h"

#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {

GatedOutput::GatedOutput(const Parameters& parameters, const Settings& settings)
    : settings_(settings), output_(parameters.tensor("o")) {
  if (gated()) gate_ = Linear(parameters.tensor("gate"));
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
  if (gated()) apply_gate(x, o, segments, compute);
  scale_heads(segments, settings_.heads, o, compute);
  for_each_block(segments, [&](Index first, Index rows) {
    output_.run(o.slice_rows(first, rows), y.slice_rows(first, rows), compute);
    if (!bias_.empty()) add_bias(bias_, y.slice_rows(first, rows), compute);
  });
}

void GatedOutput::apply_gate(View<const float> x, View<float> o, std::span<const Segment> segments,
                             const Compute& compute) const {
  const Kernels& k = kernels(compute);
  Arena::Scope scope(scratch());
  const View<float> factors = scope.rows(x.rows, o.cols);
  for_each_block(segments, [&](Index first, Index rows) {
    const View<float> block = factors.slice_rows(first, rows);
    gate_.run(x.slice_rows(first, rows), block, compute);
    map_rows(settings_.gate == Gate::silu ? k.silu : k.sigmoid, block, block, compute);
  });
  edit_gates(segments, settings_.heads, factors);
  for_each_block(segments, [&](Index first, Index rows) {
    const View<float> block = o.slice_rows(first, rows);
    zip_rows(k.multiply, block, factors.slice_rows(first, rows), block, compute);
  });
}

}  // namespace plait
