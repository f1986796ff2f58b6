#include "layers/attention/scalar_decay.h"

#include "layers/attention/projection.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

constexpr float kLowestLogDecay = -104;  // exp of it is zero in f32

void edit_head(const Segment& segment, Index head, Index group, View<float> g) {
  for (const Edit* edit : segment.edits->all()) {
    if (!covers(*edit, head)) continue;
    if (edit->site == Site::decay && edit->op == Operator::constant)
      fill_rows(static_cast<float>(value_of(*edit, head)), g);
    if (edit->site == Site::decay && edit->op == Operator::one) fill_rows(0, g);
    if (edit->site == Site::decay && edit->op == Operator::zero) fill_rows(kLowestLogDecay, g);
  }
  if (shared_edit(segment, Site::state, Operator::freeze, head, group)) fill_rows(0, g);
}

}  // namespace

ScalarDecay::ScalarDecay(const Tensor* weight, const Tensor& bias, double temperature, Index group)
    : bias_(to_float(bias)), rate_(1.0f / static_cast<float>(temperature)), group_(group) {
  if (weight) weight_.emplace(*weight);
}

void ScalarDecay::run(View<const float> x, std::span<const Segment> segments, View<float> g,
                      const Compute& compute) const {
  if (bias_.empty()) return;
  for_each_block(segments, [&](Index first, Index rows) {
    const View<float> block = g.slice_rows(first, rows);
    if (weight_)
      weight_->run(x.slice_rows(first, rows), block, compute);
    else
      fill_rows(0, block);
    add_bias(bias_, block, compute);
    map_rows(kernels(compute).log_sigmoid, block, block, compute);
    scale_rows(block, rate_, block, compute);
  });
  for (const Segment& segment : segments) {
    segment.show(Site::decay, g);
    for (Index h = 0; segment.edits && h < heads(); ++h)
      edit_head(segment, h, group_, g.slice_rows(segment.first_row, segment.rows).slice_cols(h, 1));
  }
}

void append_sums(const Segment& segment, View<const float> decay, View<double> sums, Log& log) {
  std::vector<double> last(static_cast<std::size_t>(decay.cols), 0.0);
  if (!log.present().empty() && log.present().back().end == log.end())
    for (std::size_t h = 0; h < last.size(); ++h)
      last[h] = log.page<double>(log.end() -
                                 1)[static_cast<Index>(h) * log.stride() + (log.end() - 1) % log.page_rows()];
  for (Index r = segment.first_row; r < segment.first_row + segment.rows; ++r)
    for (Index h = 0; h < decay.cols; ++h)
      sums(r, h) = last[static_cast<std::size_t>(h)] += static_cast<double>(decay(r, h));
  log.append(segment.position, View<const double>(sums.slice_rows(segment.first_row, segment.rows)));
}

}  // namespace plait
