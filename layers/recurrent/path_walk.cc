#include "layers/recurrent/path_walk.h"

#include <algorithm>
#include <cassert>

#include "layers/recurrent/panels.h"
#include "layers/recurrent/rows.h"
#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

constexpr Index kKeys = 0, kValues = 1, kDirections = 2, kSolved = 3;  // fields, from the first one
constexpr Index kBlock = kWalkBlock;

Field log_field(const char* name, Index width, Field::Order order) {
  Field field;
  field.name = name;
  field.kind = Field::Kind::log;
  field.shape = {width};
  field.order = order;
  return field;
}

}  // namespace

PathWalk::PathWalk(const ProjectionSettings& heads, double scale, std::vector<Field>& fields)
    : heads_(heads), scale_(static_cast<float>(scale)), first_field_(static_cast<Index>(fields.size())) {
  const Index kv = heads.num_kv_heads;
  fields.push_back(log_field("k", kv * heads.head_dim, Field::Order::columns));
  fields.push_back(log_field("v", kv * heads.value_head_dim, Field::Order::rows));
  fields.push_back(log_field("w", kv * heads.head_dim, Field::Order::columns));
  fields.push_back(log_field("yz", kv * yz_width(), Field::Order::rows));
}

// Rows of one part and the query heads of one group, walked back over the blocks.
class PathWalk::Tile {
 public:
  Tile(const PathWalk& walk, const BlockPart& part, Index kv_head, const Rows& rows,
       std::optional<Index> log_f, const Kernels& k, Arena::Scope& scope)
      : walk_(walk),
        state_(*part.segment->state),
        kv_head_(kv_head),
        log_f_(log_f),
        k_(k),
        softmax_(part, kv_head * walk.heads_.group(), walk.heads_.group(), walk.heads_.value_head_dim,
                 log(kKeys), k, scope) {
    const Index width = walk.heads_.head_dim;
    queries_ = scope.rows(softmax_.rows(), width);
    along_ = scope.rows(softmax_.rows(), kBlock);
    weights_ = scope.rows(softmax_.rows(), kBlock);
    for (Index r = 0; r < queries_.rows; ++r)
      std::copy_n(rows.q.row(softmax_.batch_row(r)) + softmax_.head(r) * width, width, queries_.row(r));
  }

  void run(View<float> o) {
    for (block_ = softmax_.newest_block(); block_ >= softmax_.oldest_block(); block_ -= kBlock) step();
    softmax_.finish(o);
  }

 private:
  const Log& log(Index field) const { return state_.log(walk_.first_field_ + field); }
  template <class T = float>
  const T* page(Index field) const {
    return log(field).page<T>(block_);
  }

  void step() {
    const ProjectionSettings& p = walk_.heads_;
    if (!page(kDirections)) return;  // the whole block is a hole
    const bool seen = softmax_.enter(block_);
    const Index count = softmax_.limit(softmax_.rows() - 1);
    const float* yz = page(kSolved) + kv_head_ * walk_.yz_width();
    score(k_, queries_, page(kDirections) + kv_head_ * p.head_dim * kBlock, kBlock, count, along_);
    for (Index r = 0; r < along_.rows; ++r) k_.scale(along_.row(r), -1, along_.row(r), count);
    if (seen) {
      score(k_, queries_, page(kKeys) + kv_head_ * p.head_dim * kBlock, kBlock, count, weights_);
      softmax_.add_products(along_, yz + p.head_dim, log(kSolved).stride(),
                            {weights_.data, weights_.rows, count, weights_.stride});
      for (Index r = 0; r < weights_.rows; ++r) finish_logits(r, weights_.row(r));
      softmax_.add(weights_, page(kValues) + kv_head_ * p.value_head_dim, log(kValues).stride());
    }
    if (block_ > 0) softmax_.add_products(along_, yz, log(kSolved).stride(), queries_);
  }

  void finish_logits(Index r, float* s) const {
    for (const KeyRange& run : softmax_.runs(r)) {
      if (log_f_) forget(r, run, s);
      k_.scale(s + run.begin, walk_.scale_, s + run.begin, run.end - run.begin);
    }
  }

  void forget(Index r, const KeyRange& run, float* s) const {
    const Log& log = state_.log(*log_f_);
    const Index column = softmax_.head(r) * log.stride(), position = softmax_.position(r);
    const double* sums = log.page<double>(block_) + column;
    const double own = log.page<double>(position)[column + position % kBlock];
    for (Index j = run.begin; j < run.end; ++j) s[j] += static_cast<float>(own - sums[j]);
  }

  const PathWalk& walk_;
  const State& state_;
  Index kv_head_;
  std::optional<Index> log_f_;
  const Kernels& k_;
  BlockSoftmax softmax_;
  View<float> queries_;  // [rows, head_dim], as they are at the end of the block
  View<float> along_;    // [rows, kBlock] -q.w_s
  View<float> weights_;  // [rows, kBlock] logits, then numerators
  Index block_ = 0;
};

void PathWalk::run(const Rows& rows, std::span<const Segment> segments, std::optional<Index> log_f,
                   const Compute& compute) const {
  const Kernels& k = kernels(compute);
  const Index heads = heads_.num_kv_heads;
  for (const Segment& segment : segments) {
    const auto append = [&](Index field, View<const float> all) {
      segment.state->log(first_field_ + field).append(segment.position, rows_of(segment, all));
    };
    append(kKeys, rows.k);
    append(kValues, rows.v);
    append(kDirections, rows.w);
  }
  const std::vector<BlockPart> parts = block_parts(segments);
  Arena::Scope scope(scratch());
  const View<float> yz = scope.rows(rows.q.rows, heads * yz_width());
  const Index count = static_cast<Index>(parts.size()) * heads;
  const auto part_of = [&](Index i) -> const BlockPart& {
    return parts[static_cast<std::size_t>(i / heads)];
  };
  parallel_for(compute.threads, count, [&](Index i) { extend(part_of(i), i % heads, rows, yz, k); });
  for (const Segment& segment : segments)
    segment.state->log(first_field_ + kSolved)
        .append(segment.position, View<const float>(rows_of(segment, yz)));
  parallel_for(compute.threads, count, [&](Index i) {
    Arena::Scope own(scratch());
    Tile(*this, part_of(i), i % heads, rows, log_f, k, own).run(rows.o);
  });
}

// y_r and z_r of the part's rows: both are beta_r (start - sum_{s < r} (w_r.w_s) row s), where y starts from
// w_r and z from w_r.k_j for j < r; z_sj is 0 for s <= j.
void PathWalk::extend(const BlockPart& part, Index kv_head, const Rows& rows, View<float> yz,
                      const Kernels& k) const {
  const State& state = *part.segment->state;
  const Log &keys = state.log(first_field_ + kKeys), &directions = state.log(first_field_ + kDirections),
            &solved = state.log(first_field_ + kSolved);
  assert(keys.page_rows() == kBlock && keys.stride() == kBlock);
  const Index d = heads_.head_dim, first = part.place(), end = first + part.rows,
              column = kv_head * d * kBlock;
  Arena::Scope scope(scratch());
  const View<float> block = scope.rows(end, yz_width());
  fill_rows(0, block);
  if (const float* page = first > 0 ? solved.page(part.position) : nullptr)
    copy_rows(View<const float>(page + kv_head * yz_width(), first, yz_width(), solved.stride()),
              block.slice_rows(0, first));
  const View<const float> w = rows.w.slice_rows(part.first_row, part.rows).slice_cols(kv_head * d, d);
  const View<float> along = scope.rows(part.rows, kBlock), meeting = scope.rows(part.rows, kBlock);
  score(k, w, directions.page(part.position) + column, kBlock, end, along);
  score(k, w, keys.page(part.position) + column, kBlock, end, meeting);
  for (Index i = 0; i < part.rows; ++i) {
    const Index place = first + i;
    float* row = block.row(place);
    std::copy_n(w.row(i), d, row);
    std::copy_n(meeting.row(i), place, row + d);
    k.scale(along.row(i), -1, along.row(i), place);
    k.combine(place, d + place, along.row(i), block.data, block.stride, row, Start::present);
    k.scale(row, rows.beta(part.first_row + i, kv_head), row, d + place);
  }
  copy_rows(block.slice_rows(first, part.rows),
            yz.slice_rows(part.first_row, part.rows).slice_cols(kv_head * yz_width(), yz_width()));
}

}  // namespace plait
