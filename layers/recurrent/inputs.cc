#include "layers/recurrent/inputs.h"

#include <string>

#include "layers/recurrent/rows.h"
#include "runtime/base/arena.h"

namespace plait {
namespace {

Convolution::Mode mode_of(const Segment& segment) {
  if (const Edit* edit = segment.edit(Site::conv, Operator::identity))
    return edit->drop_activation ? Convolution::Mode::bypass : Convolution::Mode::identity;
  if (segment.edit(Site::conv, Operator::current_tap)) return Convolution::Mode::current_tap;
  return Convolution::Mode::normal;
}

}  // namespace

void convolve(std::span<const Segment> segments, Index field, View<const float> x,
              std::initializer_list<Convolved> outputs, const Compute& compute) {
  for (const Segment& segment : segments) {
    Log& log = segment.state->log(field);
    for (const Convolved& output : outputs) {
      Arena::Scope scope(scratch());
      const Index count = output.convolution->kernel() - 1;
      const std::span history(scope.take<const float*>(count), static_cast<std::size_t>(count));
      gather_history(log, segment.position, history);
      output.convolution->run(rows_of(segment, x), history, rows_of(segment, output.y), mode_of(segment),
                              compute);
    }
    log.append_passed(segment.position, rows_of(segment, x));
  }
}

Field convolution_field(Index channels, Index kernel) {
  Field field;
  field.name = "conv";
  field.kind = Field::Kind::log;
  field.shape = {channels};
  field.window = kernel;
  return field;
}

ConvolvedInputs::ConvolvedInputs(const Parameters& parameters, std::initializer_list<const char*> names,
                                 Index kernel, Convolution::Activation activation) {
  std::vector<float> taps;
  for (const char* name : names) {
    projections_.emplace_back(parameters.tensor(name));
    width_ += projections_.back().out();
    if (kernel == 0) continue;
    const auto own = parameters.vector(std::string(name) + "_conv");
    taps.insert(taps.end(), own.begin(), own.end());
  }
  if (kernel > 0) convolution_ = Convolution(kernel, taps, {}, activation);
}

void ConvolvedInputs::run(View<const float> x, View<float> y, std::span<const Segment> segments, Index log,
                          const Compute& compute) const {
  Arena::Scope scope(scratch());
  const View<float> projected = convolves() ? scope.rows(x.rows, width_) : y;
  for_each_block(segments, [&](Index first, Index rows) {
    Index column = 0;
    for (const Linear& projection : projections_) {
      projection.run(x.slice_rows(first, rows),
                     projected.slice_rows(first, rows).slice_cols(column, projection.out()), compute);
      column += projection.out();
    }
  });
  if (convolves()) convolve(segments, log, projected, {{&convolution_, y}}, compute);
}

}  // namespace plait
