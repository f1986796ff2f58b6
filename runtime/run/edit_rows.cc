#include "runtime/run/edit_rows.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/base/noise.h"
#include "runtime/base/random.h"
#include "runtime/run/recording.h"

namespace plait {
namespace {

void resample(const Edit& edit, const Segment& segment, Index heads, Index head, View<float> rows) {
  const Index width = heads * rows.cols;
  if (takes_inner_rows(edit)) {
    const std::vector<float>& held = edit.recorded->inner_rows.at(edit.site);
    for (Index r = 0; r < rows.rows; ++r) {
      const auto first =
          static_cast<std::size_t>(drawn_row(edit, segment.position + r) * width + head * rows.cols);
      std::copy_n(&held[first], rows.cols, rows.row(r));
    }
    return;
  }
  const Index count = static_cast<Index>(edit.values.size()) / width;
  const Index first = segment.position - edit.begin;
  if (first < 0 || first + rows.rows > count)
    fail("edit of '", edit.node, "': ", name_of(edit.site), "/resample has values for ", count,
         " tokens from position ", edit.begin, ", none for position ",
         first < 0 ? segment.position : edit.begin + count);
  for (Index r = 0; r < rows.rows; ++r)
    for (Index c = 0; c < rows.cols; ++c)
      rows(r, c) = static_cast<float>(
          edit.values[static_cast<std::size_t>((first + r) * width + head * rows.cols + c)]);
}

void disturb(const Edit& edit, const Segment& segment, Index head, View<float> rows) {
  for (Index r = 0; r < rows.rows; ++r) {
    double sum = 0;
    for (Index c = 0; c < rows.cols; ++c)
      sum += static_cast<double>(rows(r, c)) * static_cast<double>(rows(r, c));
    const double size = std::sqrt(sum / static_cast<double>(rows.cols));
    add_noise(noise_key({edit.seed, segment.edits->layer(), static_cast<std::uint64_t>(head),
                         static_cast<std::uint64_t>(segment.position + r)}),
              static_cast<float>(value_of(edit, head) * size), rows.row(r), rows.cols);
  }
}

}  // namespace

Index drawn_row(const Edit& edit, Index position) {
  const double u = uniform_draw(edit.seed, 0, static_cast<std::uint64_t>(position));
  return std::min(edit.recorded->count - 1,
                  static_cast<Index>(u * static_cast<double>(edit.recorded->count)));
}

void fill_values(const Edit& edit, Index heads, Index head, View<float> rows) {
  const bool by_channel = rows.cols > 1 && static_cast<Index>(edit.values.size()) == heads * rows.cols;
  for (Index r = 0; r < rows.rows; ++r)
    for (Index c = 0; c < rows.cols; ++c)
      rows(r, c) = static_cast<float>(by_channel ? edit.values[static_cast<std::size_t>(head * rows.cols + c)]
                                                 : value_of(edit, head));
}

void edit_rows(const Edit& edit, const Segment& segment, Index heads, Index head, View<float> rows) {
  const auto factor = static_cast<float>(edit.op == Operator::scale ? value_of(edit, head) : 0);
  if (edit.op == Operator::mean) fill_values(edit, heads, head, rows);
  if (edit.op == Operator::resample) resample(edit, segment, heads, head, rows);
  if (edit.op == Operator::noise) disturb(edit, segment, head, rows);
  for (Index r = 0; r < rows.rows; ++r) {
    if (edit.op == Operator::zero) std::fill_n(rows.row(r), rows.cols, 0.0f);
    for (Index c = 0; edit.op == Operator::scale && c < rows.cols; ++c) rows(r, c) *= factor;
  }
}

void edit_heads(std::span<const Segment> segments, Index heads, View<float> rows, HeadEdits which) {
  const Index width = rows.cols / heads;
  for (const Segment& segment : segments) {
    segment.show(Site::head, rows);
    if (!segment.edits) continue;
    for (const Edit* edit : segment.edits->all()) {
      if (edit->site != Site::head || (edit->op == Operator::scale && which == HeadEdits::but_scale))
        continue;
      for (Index h = 0; h < heads; ++h)
        if (covers(*edit, h))
          edit_rows(*edit, segment, heads, h,
                    rows.slice_rows(segment.first_row, segment.rows).slice_cols(h * width, width));
    }
  }
}

SiteSpec head_site(Index heads, Index channels) {
  return {Site::head,
          {Operator::zero, Operator::scale, Operator::mean, Operator::resample, Operator::noise},
          heads,
          channels};
}

SiteSpec gate_site(Index heads, Index channels) {
  return {Site::gate, {Operator::one, Operator::mean}, heads, channels};
}

}  // namespace plait
