#include "layers/recurrent/block_softmax.h"

#include <algorithm>
#include <limits>

#include "runtime/base/panel.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

constexpr Index kLanes = 16;

}  // namespace

std::vector<BlockPart> block_parts(std::span<const Segment> segments) {
  std::vector<BlockPart> parts;
  for (const Segment& segment : segments)
    for (Index r = 0, count = 0; r < segment.rows; r += count) {
      const Index position = segment.position + r;
      count = std::min(segment.rows - r, kWalkBlock - position % kWalkBlock);
      parts.push_back({&segment, segment.first_row + r, position, count});
    }
  return parts;
}

BlockSoftmax::BlockSoftmax(const BlockPart& part, Index first_head, Index heads, Index value_width,
                           const Log& keys, const Kernels& k, Arena::Scope& scope, const Sight& sight)
    : part_(part),
      first_head_(first_head),
      k_(k),
      sums_(scope.rows(heads * part.rows, value_width)),
      lanes_(scope.rows(heads * part.rows, kLanes)),
      maximum_(static_cast<std::size_t>(heads * part.rows), -std::numeric_limits<float>::infinity()),
      oldest_(std::numeric_limits<Index>::max()) {
  fill_rows(0, sums_);
  fill_rows(0, lanes_);
  for (Index h = 0; h < heads; ++h) {
    const Visibility visibility(sight, *part.segment, first_head + h, keys.present());
    muted_.emplace_back(visibility.muted().begin(), visibility.muted().end());
    for (Index i = 0; i < part.rows; ++i) {
      std::vector<KeyRange>& ranges = visible_.emplace_back();
      visibility.append(part.position + i, ranges);
      if (!ranges.empty()) oldest_ = std::min(oldest_, ranges.front().begin);
    }
  }
}

void BlockSoftmax::start(float logit) {
  std::fill(maximum_.begin(), maximum_.end(), logit);
  for (Index r = 0; r < rows(); ++r) lanes_(r, 0) = 1;
}

bool BlockSoftmax::enter(Index block) {
  block_ = block;
  runs_.clear();
  first_run_.assign(1, 0);
  whole_ = true;
  for (Index r = 0; r < rows(); ++r) {
    for (const KeyRange& range : visible_[static_cast<std::size_t>(r)]) {
      const KeyRange run{std::max(range.begin - block, Index{0}), std::min(range.end - block, kWalkBlock)};
      if (run.begin < run.end) runs_.push_back(run);
    }
    first_run_.push_back(runs_.size());
    whole_ = whole_ && runs(r).size() == 1 && runs(r)[0] == KeyRange{0, limit(r)};
  }
  return !runs_.empty();
}

void BlockSoftmax::add_products(View<const float> x, const float* rows, Index stride, View<float> y) const {
  for (Index c = 0; c < y.cols; c += kPanel) {
    const Index cols = std::min(kPanel, y.cols - c);
    if (!own()) {
      k_.panel(y.rows, kWalkBlock, cols, x.data, x.stride, rows + c, stride, y.data + c, y.stride,
               Start::present);
      continue;
    }
    for (Index r = 0; r < y.rows; r += part_.rows)
      k_.panel_triangular(part_.rows, limit(r), cols, x.row(r), x.stride, rows + c, stride, y.row(r) + c,
                          y.stride, Start::present);
  }
}

void BlockSoftmax::add(View<float> logits, const float* values, Index stride) {
  for (Index r = 0; r < rows(); ++r) weigh(r, logits.row(r));
  gather(logits, values, stride);
}

// Maximum and numerators of one row's keys.
void BlockSoftmax::weigh(Index r, float* s) {
  if (runs(r).empty()) return;
  float& maximum = maximum_[static_cast<std::size_t>(r)];
  const float before = maximum;
  for (const KeyRange& run : runs(r))
    maximum = std::max(maximum, k_.maximum(s + run.begin, run.end - run.begin));
  if (maximum != before) {
    float factor = 0;
    k_.exp_minus(&before, maximum, &factor, 1);
    k_.scale(lanes_.row(r), factor, lanes_.row(r), kLanes);
    k_.scale(sums_.row(r), factor, sums_.row(r), sums_.cols);
  }
  for (const KeyRange& run : runs(r)) {
    k_.exp_minus(s + run.begin, maximum, s + run.begin, run.end - run.begin);
    k_.add_to_lanes(s, run.begin, run.end, lanes_.row(r));
    for (const KeyRange& muted : muted_[static_cast<std::size_t>(r / part_.rows)]) {
      const Index begin = std::max(run.begin, muted.begin - block_);
      const Index end = std::min(run.end, muted.end - block_);
      if (begin < end) std::fill_n(s + begin, end - begin, 0.0f);
    }
  }
}

void BlockSoftmax::gather(View<const float> weights, const float* values, Index stride) {
  if (whole_) return add_products(weights, values, stride, sums_);
  for (Index r = 0; r < rows(); ++r)
    for (const KeyRange& run : runs(r))
      k_.combine(run.end - run.begin, sums_.cols, weights.row(r) + run.begin, values + run.begin * stride,
                 stride, sums_.row(r), Start::present);
}

void BlockSoftmax::finish(View<float> o) const {
  for (Index r = 0; r < rows(); ++r) {
    const float mass = k_.sum_lanes(lanes_.row(r));
    k_.scale(sums_.row(r), mass == 0 ? 0 : 1 / mass, o.row(batch_row(r)) + head(r) * sums_.cols, sums_.cols);
  }
}

}  // namespace plait
