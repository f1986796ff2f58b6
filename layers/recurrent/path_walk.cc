#include "layers/recurrent/path_walk.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "layers/attention/visibility.h"
#include "layers/recurrent/panels.h"
#include "layers/recurrent/rows.h"
#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

constexpr Index kKeys = 0, kValues = 1, kDirections = 2, kSolved = 3;  // fields, from the first one
constexpr Index kLanes = 16;

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

// Rows of one part and the query heads of one group, heads outermost, walked back over the blocks.
class PathWalk::Tile {
 public:
  Tile(const PathWalk& walk, const Part& part, Index kv_head, const Rows& rows, std::optional<Index> log_f,
       const Kernels& k, Arena::Scope& scope)
      : walk_(walk), part_(part), kv_head_(kv_head), rows_(rows), log_f_(log_f), k_(k) {
    const ProjectionSettings& p = walk.heads_;
    const Index count = p.group() * part.rows;
    queries_ = scope.rows(count, p.head_dim);
    along_ = scope.rows(count, kBlock);
    weights_ = scope.rows(count, kBlock);
    sums_ = scope.rows(count, p.value_head_dim);
    lanes_ = scope.rows(count, kLanes);
    fill_rows(0, sums_);
    fill_rows(0, lanes_);
    for (Index r = 0; r < count; ++r)
      std::copy_n(rows.q.row(batch_row(r)) + head(r) * p.head_dim, p.head_dim, queries_.row(r));
    maximum_.assign(static_cast<std::size_t>(count), -std::numeric_limits<float>::infinity());
    find_visible();
  }

  void run() {
    for (block_ = position(0) / kBlock * kBlock; block_ >= 0 && block_ + kBlock > oldest_; block_ -= kBlock)
      step();
    for (Index r = 0; r < queries_.rows; ++r) {
      const float mass = k_.sum_lanes(lanes_.row(r));
      float* out = rows_.o.row(batch_row(r)) + head(r) * sums_.cols;
      k_.scale(sums_.row(r), mass == 0 ? 0 : 1 / mass, out, sums_.cols);
    }
  }

 private:
  Index batch_row(Index r) const { return part_.first_row + r % part_.rows; }
  Index position(Index r) const { return part_.position + r % part_.rows; }
  Index head(Index r) const { return kv_head_ * walk_.heads_.group() + r / part_.rows; }
  bool own() const { return block_ + kBlock > part_.position; }
  // Rows of the block that a row goes back over.
  Index limit(Index r) const { return own() ? position(r) - block_ + 1 : kBlock; }
  const Log& log(Index field) const { return part_.segment->state->log(walk_.first_field_ + field); }
  template <class T = float>
  const T* page(Index field) const {
    return log(field).page<T>(block_);
  }

  void find_visible() {
    const Index group = walk_.heads_.group();
    for (Index g = 0; g < group; ++g) {
      const Visibility visibility({}, *part_.segment, kv_head_ * group + g, log(kKeys).present());
      muted_.emplace_back(visibility.muted().begin(), visibility.muted().end());
      for (Index i = 0; i < part_.rows; ++i) {
        std::vector<KeyRange>& ranges = visible_.emplace_back();
        visibility.append(part_.position + i, ranges);
        if (!ranges.empty()) oldest_ = std::min(oldest_, ranges.front().begin);
      }
    }
  }

  // y_r += sum over the rows s of the block that row r goes over of x_rs rows_s, s ascending.
  void add_products(View<const float> x, const float* rows, Index stride, View<float> y) const {
    for (Index c = 0; c < y.cols; c += kPanel) {
      const Index cols = std::min(kPanel, y.cols - c);
      if (!own()) {
        k_.panel(y.rows, kBlock, cols, x.data, x.stride, rows + c, stride, y.data + c, y.stride,
                 Start::present);
        continue;
      }
      for (Index r = 0; r < y.rows; r += part_.rows)
        k_.panel_triangular(part_.rows, limit(r), cols, x.row(r), x.stride, rows + c, stride, y.row(r) + c,
                            y.stride, Start::present);
    }
  }

  void step() {
    const ProjectionSettings& p = walk_.heads_;
    if (!page(kDirections)) return;  // the whole block is a hole
    const Index count = own() ? limit(part_.rows - 1) : kBlock;
    const float* yz = page(kSolved) + kv_head_ * walk_.yz_width();
    score(k_, queries_, page(kDirections) + kv_head_ * p.head_dim * kBlock, kBlock, count, along_);
    for (Index r = 0; r < along_.rows; ++r) k_.scale(along_.row(r), -1, along_.row(r), count);
    if (find_runs()) {
      score(k_, queries_, page(kKeys) + kv_head_ * p.head_dim * kBlock, kBlock, count, weights_);
      add_products(along_, yz + p.head_dim, log(kSolved).stride(),
                   {weights_.data, weights_.rows, count, weights_.stride});
      for (Index r = 0; r < weights_.rows; ++r) weigh(r);
      gather(page(kValues) + kv_head_ * p.value_head_dim, log(kValues).stride());
    }
    if (block_ > 0) add_products(along_, yz, log(kSolved).stride(), queries_);
  }

  // The keys each row sees in this block, as places in it; false if there are none.
  bool find_runs() {
    runs_.assign(visible_.size(), {});
    whole_ = true;
    bool any = false;
    for (std::size_t r = 0; r < visible_.size(); ++r) {
      for (const KeyRange& range : visible_[r]) {
        const KeyRange run{std::max(range.begin - block_, Index{0}), std::min(range.end - block_, kBlock)};
        if (run.begin < run.end) runs_[r].push_back(run);
      }
      any = any || !runs_[r].empty();
      whole_ = whole_ && runs_[r].size() == 1 && runs_[r][0] == KeyRange{0, limit(static_cast<Index>(r))};
    }
    return any;
  }

  // Logits, maximum and numerators of one row's keys.
  void weigh(Index r) {
    const std::vector<KeyRange>& runs = runs_[static_cast<std::size_t>(r)];
    if (runs.empty()) return;
    float* s = weights_.row(r);
    float& maximum = maximum_[static_cast<std::size_t>(r)];
    const float before = maximum;
    for (const KeyRange& run : runs) {
      if (log_f_) forget(r, run, s);
      k_.scale(s + run.begin, walk_.scale_, s + run.begin, run.end - run.begin);
      maximum = std::max(maximum, k_.maximum(s + run.begin, run.end - run.begin));
    }
    if (maximum != before) {
      float factor = 0;
      k_.exp_minus(&before, maximum, &factor, 1);
      k_.scale(lanes_.row(r), factor, lanes_.row(r), kLanes);
      k_.scale(sums_.row(r), factor, sums_.row(r), sums_.cols);
    }
    for (const KeyRange& run : runs) {
      k_.exp_minus(s + run.begin, maximum, s + run.begin, run.end - run.begin);
      k_.add_to_lanes(s, run.begin, run.end, lanes_.row(r));
      for (const KeyRange& muted : muted_[static_cast<std::size_t>(r / part_.rows)]) {
        const Index begin = std::max(run.begin, muted.begin - block_);
        const Index end = std::min(run.end, muted.end - block_);
        if (begin < end) std::fill_n(s + begin, end - begin, 0.0f);
      }
    }
  }

  void forget(Index r, const KeyRange& run, float* s) const {
    const Log& log = part_.segment->state->log(*log_f_);
    const Index column = head(r) * log.stride();
    const double* sums = log.page<double>(block_) + column;
    const double own = log.page<double>(position(r))[column + position(r) % kBlock];
    for (Index j = run.begin; j < run.end; ++j) s[j] += static_cast<float>(own - sums[j]);
  }

  void gather(const float* values, Index stride) {
    if (whole_) return add_products(weights_, values, stride, sums_);
    for (Index r = 0; r < sums_.rows; ++r)
      for (const KeyRange& run : runs_[static_cast<std::size_t>(r)])
        k_.combine(run.end - run.begin, sums_.cols, weights_.row(r) + run.begin, values + run.begin * stride,
                   stride, sums_.row(r), Start::present);
  }

  const PathWalk& walk_;
  const Part& part_;
  Index kv_head_;
  const Rows& rows_;
  std::optional<Index> log_f_;
  const Kernels& k_;
  View<float> queries_;  // [rows, head_dim], as they are at the end of the block
  View<float> along_;    // [rows, kBlock] -q.w_s
  View<float> weights_;  // [rows, kBlock] logits, then numerators
  View<float> sums_;     // [rows, value_head_dim] of numerator times value
  View<float> lanes_;    // [rows, kLanes] of numerators
  std::vector<float> maximum_;
  std::vector<std::vector<KeyRange>> visible_, runs_;  // by row
  std::vector<std::vector<KeyRange>> muted_;           // by head of the group
  bool whole_ = false;                                 // every row sees all it goes over
  Index oldest_ = std::numeric_limits<Index>::max() - kBlock;
  Index block_ = 0;
};

void PathWalk::run(const Rows& rows, std::span<const Segment> segments, std::optional<Index> log_f,
                   const Compute& compute) const {
  const Kernels& k = kernels(compute);
  const Index heads = heads_.num_kv_heads;
  std::vector<Part> parts;
  for (const Segment& segment : segments) {
    const auto append = [&](Index field, View<const float> all) {
      segment.state->log(first_field_ + field).append(segment.position, rows_of(segment, all));
    };
    append(kKeys, rows.k);
    append(kValues, rows.v);
    append(kDirections, rows.w);
    for (Index r = 0, count = 0; r < segment.rows; r += count) {
      const Index position = segment.position + r;
      count = std::min(segment.rows - r, kBlock - position % kBlock);
      parts.push_back({&segment, segment.first_row + r, position, count});
    }
  }
  Arena::Scope scope(scratch());
  const View<float> yz = scope.rows(rows.q.rows, heads * yz_width());
  const Index count = static_cast<Index>(parts.size()) * heads;
  const auto part_of = [&](Index i) -> const Part& { return parts[static_cast<std::size_t>(i / heads)]; };
  parallel_for(compute.threads, count, [&](Index i) { extend(part_of(i), i % heads, rows, yz, k); });
  for (const Segment& segment : segments)
    segment.state->log(first_field_ + kSolved)
        .append(segment.position, View<const float>(rows_of(segment, yz)));
  parallel_for(compute.threads, count, [&](Index i) {
    Arena::Scope own(scratch());
    Tile(*this, part_of(i), i % heads, rows, log_f, k, own).run();
  });
}

// y_r and z_r of the part's rows: both are beta_r (start - sum_{s < r} (w_r.w_s) row s), where y starts from
// w_r and z from w_r.k_j for j < r; z_sj is 0 for s <= j.
void PathWalk::extend(const Part& part, Index kv_head, const Rows& rows, View<float> yz,
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
