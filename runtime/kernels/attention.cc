#include "runtime/kernels/attention.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>

#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"

namespace plait {
namespace {

constexpr Index kLanes = 16;
constexpr Index kMostPartials = Index{1} << 24;  // floats
constexpr Index kEdgeGroup = 12;  // rows per product where rows begin and end at different keys

Index lane_floor(Index position) { return position / kLanes * kLanes; }

// Lanes of sums of logits and of their squares.
struct MomentLanes {
  double sums[kLanes], squares[kLanes];
};

// What one row has gathered over one or more spans.
class Partial {
 public:
  static Index size(const KeyRule& rule, Index value_width) {
    const Index moments =
        rule.gathers_moments() ? static_cast<Index>(sizeof(MomentLanes) / sizeof(float)) : 0;
    return 3 * kLanes + std::max(moments, round_up(rule.accumulators() * value_width, kLanes));
  }

  explicit Partial(float* data) : data_(data) {}
  float& maximum() { return data_[0]; }
  float& minimum() { return data_[2]; }
  bool touched() const { return data_[1] != 0; }
  void touch() { data_[1] = 1; }
  float* lanes() { return data_ + kLanes; }
  float* second_lanes() { return data_ + 2 * kLanes; }
  float* accumulators() { return data_ + 3 * kLanes; }
  // In place of accumulators.
  MomentLanes moments() const {
    MomentLanes moments;
    std::memcpy(&moments, data_ + 3 * kLanes, sizeof moments);
    return moments;
  }
  void set_moments(const MomentLanes& moments) { std::memcpy(data_ + 3 * kLanes, &moments, sizeof moments); }

  void clear(Index size) {
    std::fill_n(data_, size, 0.0f);
    maximum() = -std::numeric_limits<float>::infinity();
    minimum() = std::numeric_limits<float>::infinity();
  }

 private:
  float* data_;
};

struct Sizes {
  Index key_width, value_width, accumulators, partial;
  std::span<const KeyLevel> levels;

  Sizes(const KeyRule& rule, Index keys, Index values, std::span<const KeyLevel> key_levels)
      : key_width(keys),
        value_width(values),
        accumulators(rule.accumulators()),
        partial(Partial::size(rule, values)),
        levels(key_levels) {}
};

// Everything that is relative to the reference, times `factor`.
void shrink_row(Partial row, float factor, const KeyRule& rule, const Sizes& sizes, const Kernels& k) {
  k.scale(row.lanes(), factor, row.lanes(), kLanes);
  if (rule.second_logits()) k.scale(row.second_lanes(), factor, row.second_lanes(), kLanes);
  for (Index a = 0; a < sizes.accumulators; ++a) {
    float* sums = row.accumulators() + a * sizes.value_width;
    if (rule.follows_maximum(a)) k.scale(sums, factor, sums, sizes.value_width);
  }
}

// Moves what a row has gathered to a new maximum.
void raise_maximum(Partial row, float maximum, const KeyRule& rule, const Sizes& sizes, const Kernels& k) {
  if (maximum == row.maximum()) return;
  shrink_row(row, rule.shrink(row.maximum(), maximum, k), rule, sizes, k);
  row.maximum() = maximum;
}

void combine_moments(Partial total, Partial span) {
  MomentLanes sum = total.moments();
  const MomentLanes more = span.moments();
  for (Index l = 0; l < kLanes; ++l) {
    sum.sums[l] += more.sums[l];
    sum.squares[l] += more.squares[l];
  }
  total.set_moments(sum);
  total.touch();
}

// total := total + span, spans ascending.
void combine(Partial total, Partial span, const KeyRule& rule, const Sizes& sizes, const Kernels& k) {
  if (!span.touched()) return;
  if (rule.gathers_moments()) return combine_moments(total, span);
  if (rule.references_add()) {
    if (total.touched()) shrink_row(total, rule.shrink(0, span.maximum(), k), rule, sizes, k);
  } else if (rule.tracks_maximum()) {
    const float maximum = std::max(total.maximum(), span.maximum());
    if (total.touched()) raise_maximum(total, maximum, rule, sizes, k);
    raise_maximum(span, maximum, rule, sizes, k);
    total.maximum() = maximum;
  }
  total.minimum() = std::min(total.minimum(), span.minimum());
  k.add(total.lanes(), span.lanes(), total.lanes(), kLanes);
  if (rule.second_logits()) k.add(total.second_lanes(), span.second_lanes(), total.second_lanes(), kLanes);
  const Index sums = sizes.accumulators * sizes.value_width;
  k.add(total.accumulators(), span.accumulators(), total.accumulators(), sums);
  total.touch();
}

void start_row(const QueryRow& row, Partial total, const KeyRule& rule, const Sizes& sizes) {
  total.clear(sizes.partial);
  if (rule.start(row, total.maximum(), total.lanes()[0])) total.touch();
}

void finish_row(const QueryRow& row, Partial total, const KeyRule& rule, const Sizes& sizes,
                const Kernels& k) {
  RowSums sums;
  if (rule.gathers_moments()) {
    const MomentLanes moments = total.moments();
    sums.logits = k.sum_lanes_f64(moments.sums);
    sums.squares = k.sum_lanes_f64(moments.squares);
  } else {
    sums.maximum = total.maximum();
    sums.minimum = total.minimum();
    sums.mass = k.sum_lanes(total.lanes());
    if (rule.second_logits()) sums.second_mass = k.sum_lanes(total.second_lanes());
    sums.sums = total.accumulators();
  }
  rule.finish(row, sums, sizes.value_width, k);
}

// Walks the blocks of one span for the rows of one tile.
class SpanWalk {
 public:
  SpanWalk(const KeyTile& tile, const KeyRule& rule, const Sizes& sizes, Index key_block, const Kernels& k,
           Arena::Scope& scope)
      : tile_(tile), rule_(rule), sizes_(sizes), key_block_(key_block), k_(k), scope_(scope) {
    const Index n = rows();
    leading_ = key_block + kLanes;
    queries_ = gathered(scope, &QueryRow::query);
    logits_ = scope.take(n * leading_);
    if (rule.second_logits()) {
      seconds_ = gathered(scope, &QueryRow::second);
      second_logits_ = scope.take(n * leading_);
    }
    weights_ = scope.take(sizes.accumulators * n * leading_);
    cursor_ = scope.take<Index>(n);
    std::fill_n(cursor_, n, Index{0});
    for (const QueryRow& row : tile.rows)
      if (!row.visible.empty()) last_ = std::max(last_, row.visible.back().end);
  }

  // partials [rows][sizes.partial]. Spans of one SpanWalk must come in ascending order.
  void run(Index begin, Index end, float* partials) {
    partials_ = partials;
    for (Index r = 0; r < rows(); ++r) partial(r).clear(sizes_.partial);
    for (Index block = next_block(begin); block < end; block = next_block(block + key_block_)) {
      run_block(block, std::min({block + key_block_, end, last_}));
    }
  }

 private:
  // The part of a block that lies on one page.
  struct Piece {
    KeyPage page;
    Index begin, end;             // positions some row sees
    const float* keys = nullptr;  // of position `begin` on, laid out as in a page
    Index key_stride = 0;
    const float* values = nullptr;
    Index value_stride = 0;
  };

  const float* gathered(Arena::Scope& scope, const float* QueryRow::*query) const {
    float* all = scope.take(rows() * sizes_.key_width);
    for (Index r = 0; r < rows(); ++r)
      std::copy_n(row(r).*query, sizes_.key_width, all + r * sizes_.key_width);
    return all;
  }

  Index rows() const { return static_cast<Index>(tile_.rows.size()); }
  const QueryRow& row(Index r) const { return tile_.rows[static_cast<std::size_t>(r)]; }
  Partial partial(Index r) const { return Partial(partials_ + r * sizes_.partial); }
  Index local(Index position) const { return position - lane_floor(block_); }
  float* logits(Index r, Index position) const { return logits_ + r * leading_ + local(position); }
  float* second_logits(Index r, Index position) const {
    return second_logits_ + r * leading_ + local(position);
  }
  float* weights(Index a, Index r, Index position) const {
    return weights_ + (a * rows() + r) * leading_ + local(position);
  }

  // The first block at or after `position` in which some row sees a key. Cursors move past ranges that end
  // before.
  Index next_block(Index position) {
    Index next = std::numeric_limits<Index>::max() - key_block_;
    for (Index r = 0; r < rows(); ++r) {
      const auto visible = row(r).visible;
      Index& c = cursor_[r];
      while (c < static_cast<Index>(visible.size()) && visible[static_cast<std::size_t>(c)].end <= position)
        ++c;
      if (c < static_cast<Index>(visible.size()))
        next = std::min(next, std::max(position, visible[static_cast<std::size_t>(c)].begin));
    }
    return next / key_block_ * key_block_;
  }

  void run_block(Index begin, Index end) {
    block_ = begin;
    find_pieces(begin, end);
    for (Piece& piece : pieces_) {
      lay_out_keys(piece);
      lay_out_values(piece);
      score(piece, queries_, logits(0, piece.begin));
      if (rule_.second_logits()) score(piece, seconds_, second_logits(0, piece.begin));
    }
    for (Index r = 0; r < rows(); ++r) weigh(r);
    if (sizes_.value_width == 0) return;
    for (Index a = 0; a < sizes_.accumulators; ++a)
      for (std::size_t i = 0; i < pieces_.size(); ++i) gather(static_cast<Index>(i), a);
  }

  // Splits the block at page borders and lists every row's visible runs in each piece.
  void find_pieces(Index begin, Index end) {
    pieces_.clear();
    runs_.clear();
    offsets_.clear();
    for (Index p = begin; p < end;) {
      Piece piece{tile_.cache->page(p, tile_.kv_head), end, p};
      const Index stop = piece.page.count > 0 ? std::min(end, p + piece.page.count) : p + 1;
      if (piece.page.count > 0 && find_runs(p, stop, piece)) {
        const Index shift = piece.begin - p;
        piece.page.keys =
            piece.page.keys.from(shift * (piece.page.keys_in_rows ? piece.page.keys.stride : 1));
        piece.page.values = piece.page.values.from(shift * piece.page.values.stride);
        if (piece.page.side) piece.page.side += shift;
        pieces_.push_back(piece);
      }
      p = stop;
    }
  }

  // False, and nothing listed, if no row sees a key of [begin, end).
  bool find_runs(Index begin, Index end, Piece& piece) {
    const std::size_t offsets = offsets_.size(), runs = runs_.size();
    for (Index r = 0; r < rows(); ++r) {
      offsets_.push_back(static_cast<Index>(runs_.size()));
      const auto visible = row(r).visible;
      for (auto c = static_cast<std::size_t>(cursor_[r]); c < visible.size() && visible[c].begin < end; ++c) {
        const KeyRange run{std::max(visible[c].begin, begin), std::min(visible[c].end, end)};
        if (run.begin >= run.end) continue;
        piece.begin = std::min(piece.begin, run.begin);
        piece.end = std::max(piece.end, run.end);
        runs_.push_back(run);
      }
    }
    offsets_.push_back(static_cast<Index>(runs_.size()));
    if (runs_.size() > runs) return true;
    offsets_.resize(offsets);
    return false;
  }

  std::span<const KeyRange> runs_of(Index piece, Index r) const {
    const auto at = static_cast<std::size_t>(piece * (rows() + 1) + r);
    const auto first = static_cast<std::size_t>(offsets_[at]),
               last = static_cast<std::size_t>(offsets_[at + 1]);
    return {runs_.data() + first, last - first};
  }

  void widen(const CachedElements& from, float* to, Index count) const {
    if (from.dtype == DType::f32)
      std::copy_n(static_cast<const float*>(from.data), count, to);
    else if (from.dtype == DType::bf16)
      k_.widen_bf16(static_cast<const bf16*>(from.data), to, count);
    else
      k_.widen_f16(static_cast<const f16*>(from.data), to, count);
  }

  // Keys that are not f32 channel by channel are laid out so in a room of their own, [key_width][key_block].
  void lay_out_keys(Piece& piece) {
    const CachedElements& stored = piece.page.keys;
    piece.keys = static_cast<const float*>(stored.data);
    piece.key_stride = stored.stride;
    if (stored.dtype == DType::f32 && !piece.page.keys_in_rows) return;
    if (!keys_) keys_ = scope_.take(sizes_.key_width * key_block_);
    const Index count = piece.end - piece.begin;
    float* keys = keys_ + (piece.begin - block_);
    piece.keys = keys;
    piece.key_stride = key_block_;
    if (piece.page.keys_in_rows) return turn_keys(stored, count, keys);
    for (Index c = 0; c < sizes_.key_width; ++c)
      widen(stored.from(c * stored.stride), keys + c * key_block_, count);
  }

  void turn_keys(const CachedElements& stored, Index count, float* keys) {
    Arena::Scope scope(scratch());
    float* row = scope.take(sizes_.key_width);
    for (Index i = 0; i < count; ++i) {
      widen(stored.from(i * stored.stride), row, sizes_.key_width);
      for (Index c = 0; c < sizes_.key_width; ++c) keys[c * key_block_ + i] = row[c];
    }
  }

  void lay_out_values(Piece& piece) {
    const CachedElements& stored = piece.page.values;
    piece.values = static_cast<const float*>(stored.data);
    piece.value_stride = stored.stride;
    if (stored.dtype == DType::f32) return;
    if (!values_) values_ = scope_.take(key_block_ * sizes_.value_width);
    float* values = values_ + (piece.begin - block_) * sizes_.value_width;
    piece.values = values;
    piece.value_stride = sizes_.value_width;
    for (Index i = 0; i < piece.end - piece.begin; ++i)
      widen(stored.from(i * stored.stride), values + i * sizes_.value_width, sizes_.value_width);
  }

  // Dot products of all rows with the piece's keys; a row later reads only those it sees.
  void score(const Piece& piece, const float* queries, float* s) {
    if (sizes_.levels.empty()) {
      dot(0, rows(), {0, sizes_.key_width, 0}, piece, {piece.begin, piece.end}, queries, s, Start::zero);
      return;
    }
    for (Index r = 0; r < rows(); ++r) std::fill_n(s + r * leading_, piece.end - piece.begin, 0.0f);
    for (const KeyLevel& level : sizes_.levels) score_level(level, piece, queries, s);
  }

  // Rows of one block of the level, and the keys they share it with, are one product.
  void score_level(const KeyLevel& level, const Piece& piece, const float* queries, float* s) {
    for (Index r = 0; r < rows();) {
      const Index block = row(r).position / level.block;
      Index last = r + 1;
      while (last < rows() && row(last).position / level.block == block) ++last;
      const KeyRange keys{std::max(piece.begin, block * level.block),
                          std::min(piece.end, (block + 1) * level.block)};
      if (keys.begin < keys.end) dot(r, last, level, piece, keys, queries, s, Start::present);
      r = last;
    }
  }

  // The channels of a level, of rows [first, last) and `keys`. queries, s: of row 0 and the piece's first key
  void dot(Index first, Index last, const KeyLevel& level, const Piece& piece, KeyRange keys,
           const float* queries, float* s, Start start) {
    const Index count = keys.end - keys.begin, shift = keys.begin - piece.begin, ldk = piece.key_stride;
    const float* q = queries + first * sizes_.key_width + level.first;
    const float* key = piece.keys + level.first * ldk + shift;
    float* y = s + first * leading_ + shift;
    if (last - first == 1) {
      k_.combine(level.count, count, q, key, ldk, y, start);
      return;
    }
    for (Index c = 0; c < count; c += kLanes * 2)
      k_.panel(last - first, level.count, std::min(kLanes * 2, count - c), q, sizes_.key_width, key + c, ldk,
               y + c, leading_, start);
  }

  // Logits, maximum, numerators and mass of one row's keys in this block.
  void weigh(Index r) {
    const bool add = rule_.references_add();
    references_.clear();
    float maximum = add ? 0 : partial(r).maximum();
    bool any = false;
    for (Index i = 0; i < static_cast<Index>(pieces_.size()); ++i) {
      const Piece& piece = pieces_[static_cast<std::size_t>(i)];
      for (const KeyRange& run : runs_of(i, r)) {
        const Index count = run.end - run.begin;
        const double* side = piece.page.side;
        if (side) side += row(r).head * piece.page.side_stride + (run.begin - piece.begin);
        float* s = logits(r, run.begin);
        rule_.logits(row(r), run.begin, count, side, s, k_);
        if (rule_.gathers_moments()) {
          add_moments(r, run);
          continue;
        }
        if (add)
          maximum += references_.emplace_back(rule_.reference(s, weights(0, r, run.begin), count, k_));
        else if (rule_.tracks_maximum())
          maximum = std::max(maximum, rule_.reference(s, weights(0, r, run.begin), count, k_));
        if (rule_.tracks_minimum()) see_minimum(r, s, count, weights(0, r, run.begin));
        any = true;
      }
    }
    if (!any) return;
    if (add) {
      shrink_row(partial(r), rule_.shrink(0, maximum, k_), rule_, sizes_, k_);
      partial(r).maximum() = (partial(r).touched() ? partial(r).maximum() : 0) + maximum;
    } else if (rule_.tracks_maximum()) {
      if (partial(r).touched()) raise_maximum(partial(r), maximum, rule_, sizes_, k_);
      partial(r).maximum() = maximum;
    }
    partial(r).touch();
    if (add) return add_masses_backwards(r);
    for (Index i = 0; i < static_cast<Index>(pieces_.size()); ++i)
      for (const KeyRange& run : runs_of(i, r)) add_mass(r, run, maximum);
  }

  // Of a rule whose references add up: a run is relative to the sum of those behind it.
  void add_masses_backwards(Index r) {
    float behind = 0;
    auto reference = references_.rbegin();
    for (Index i = static_cast<Index>(pieces_.size()) - 1; i >= 0; --i) {
      const auto runs = runs_of(i, r);
      for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
        add_mass(r, *run, behind);
        behind += *reference++;
      }
    }
  }

  void add_moments(Index r, const KeyRange& run) {
    MomentLanes moments = partial(r).moments();
    k_.add_moments(logits(r, lane_floor(block_)), local(run.begin), local(run.end), moments.sums,
                   moments.squares);
    partial(r).set_moments(moments);
    partial(r).touch();
  }

  // room [count] is for scratch.
  void see_minimum(Index r, const float* s, Index count, float* room) {
    k_.scale(s, -1, room, count);
    float& minimum = partial(r).minimum();
    minimum = std::min(minimum, -k_.maximum(room, count));
  }

  void add_mass(Index r, const KeyRange& run, float maximum) {
    const Index count = run.end - run.begin;
    const float* s = logits(r, run.begin);
    float* p = weights(0, r, run.begin);
    rule_.numerators(row(r), maximum, s, p, count, k_);
    k_.add_to_lanes(weights(0, r, lane_floor(block_)), local(run.begin), local(run.end), partial(r).lanes());
    rule_.settle(s, p, count, k_);
    if (rule_.second_logits()) {
      float* w = weights(1, r, run.begin);
      k_.multiply(second_logits(r, run.begin), p, w, count);
      k_.add_to_lanes(weights(1, r, lane_floor(block_)), local(run.begin), local(run.end),
                      partial(r).second_lanes());
    }
    for (Index a = rule_.second_logits() ? 2 : 1; a < sizes_.accumulators; ++a)
      rule_.weights(a, s, p, weights(a, r, run.begin), count, k_);
    for (const KeyRange& muted : row(r).muted) {
      const Index begin = std::max(run.begin, muted.begin), end = std::min(run.end, muted.end);
      for (Index a = 0; begin < end && a < sizes_.accumulators; ++a)
        std::fill_n(weights(a, r, begin), end - begin, 0.0f);
    }
  }

  // Adds weight times value over one piece for all rows, keys ascending in every row.
  void gather(Index index, Index a) {
    for (Index r = 0; r < rows();) {
      const auto runs = runs_of(index, r);
      if (runs.size() != 1) {
        for (const KeyRange& run : runs) product(index, a, r, r + 1, run);
        ++r;
        continue;
      }
      Index last = r + 1;
      while (last < rows() && runs_of(index, last).size() == 1 && runs_of(index, last)[0] == runs[0]) ++last;
      if (last - r < kEdgeGroup) {
        while (last < rows() && last - r < kEdgeGroup && runs_of(index, last).size() == 1) ++last;
      }
      gather_group(index, a, r, last);
      r = last;
    }
  }

  // Rows with one run each: the keys all of them see are one product, the others are added row by row, so
  // that no row meets a key it does not see (adding 0 * v could change the sign of a zero).
  void gather_group(Index index, Index a, Index first, Index last) {
    KeyRange common = runs_of(index, first)[0];
    for (Index r = first + 1; r < last; ++r) {
      common.begin = std::max(common.begin, runs_of(index, r)[0].begin);
      common.end = std::min(common.end, runs_of(index, r)[0].end);
    }
    if (common.begin >= common.end) {
      for (Index r = first; r < last; ++r) product(index, a, r, r + 1, runs_of(index, r)[0]);
      return;
    }
    for (Index r = first; r < last; ++r)
      product(index, a, r, r + 1, {runs_of(index, r)[0].begin, common.begin});
    product(index, a, first, last, common);
    for (Index r = first; r < last; ++r) product(index, a, r, r + 1, {common.end, runs_of(index, r)[0].end});
  }

  void product(Index index, Index a, Index first, Index last, KeyRange run) {
    if (run.begin >= run.end) return;
    const Piece& piece = pieces_[static_cast<std::size_t>(index)];
    const Index depth = run.end - run.begin, width = sizes_.value_width;
    const float* values = piece.values + (run.begin - piece.begin) * piece.value_stride;
    const float* w = weights(a, first, run.begin);
    float* sums = partial(first).accumulators() + a * width;
    if (last - first == 1) {
      k_.combine(depth, width, w, values, piece.value_stride, sums, Start::present);
      return;
    }
    for (Index c = 0; c < width; c += 2 * kLanes)
      k_.panel(last - first, depth, std::min(2 * kLanes, width - c), w, leading_, values + c,
               piece.value_stride, sums + c, sizes_.partial, Start::present);
  }

  const KeyTile& tile_;
  const KeyRule& rule_;
  const Sizes& sizes_;
  Index key_block_;
  const Kernels& k_;
  Index leading_ = 0;               // floats between rows of logits_ and weights_
  const float* queries_ = nullptr;  // [rows, key_width]
  float* logits_ = nullptr;         // [rows, leading_]
  const float* seconds_ = nullptr;  // [rows, key_width]
  float* second_logits_ = nullptr;  // [rows, leading_]
  float* weights_ = nullptr;        // [accumulators][rows, leading_]
  float* partials_ = nullptr;
  Arena::Scope& scope_;
  float* keys_ = nullptr;    // [key_width][key_block] of one block, where the cache has them otherwise
  float* values_ = nullptr;  // [key_block][value_width]
  Index* cursor_ = nullptr;  // per row, the first visible range not yet passed
  Index block_ = 0;          // its first position
  Index last_ = 0;           // behind the last key that some row sees
  std::vector<Piece> pieces_;
  std::vector<KeyRange> runs_;     // by piece, then row
  std::vector<Index> offsets_;     // by piece, rows() + 1 each
  std::vector<float> references_;  // of one row's runs, where they add up
};

// Numbers of the spans in which some row sees a key, ascending.
std::vector<Index> spans_of(const KeyTile& tile, Index key_span) {
  std::vector<Index> spans;
  for (const QueryRow& row : tile.rows)
    for (const KeyRange& range : row.visible)
      for (Index s = range.begin / key_span; s <= (range.end - 1) / key_span; ++s)
        if (spans.empty() || spans.back() != s) spans.push_back(s);
  std::sort(spans.begin(), spans.end());
  spans.erase(std::unique(spans.begin(), spans.end()), spans.end());
  return spans;
}

// One tile on one thread, its spans in turn.
void walk_tile(const KeyTile& tile, const KeyRule& rule, const Sizes& sizes, const Grids& grids,
               const Kernels& k) {
  Arena::Scope scope(scratch());
  const auto rows = static_cast<Index>(tile.rows.size());
  float* totals = scope.take(rows * sizes.partial);
  float* partials = scope.take(rows * sizes.partial);
  for (Index r = 0; r < rows; ++r)
    start_row(tile.rows[static_cast<std::size_t>(r)], Partial(totals + r * sizes.partial), rule, sizes);
  SpanWalk walk(tile, rule, sizes, grids.key_block, k, scope);
  for (Index s : spans_of(tile, grids.key_span)) {
    walk.run(s * grids.key_span, (s + 1) * grids.key_span, partials);
    for (Index r = 0; r < rows; ++r)
      combine(Partial(totals + r * sizes.partial), Partial(partials + r * sizes.partial), rule, sizes, k);
  }
  for (Index r = 0; r < rows; ++r)
    finish_row(tile.rows[static_cast<std::size_t>(r)], Partial(totals + r * sizes.partial), rule, sizes, k);
}

// A span of a tile, and where its rows' partials go.
struct Part {
  Index tile, span, partials;
};

struct Parts {
  std::vector<Part> all;
  Index room = 0;  // floats of all partials

  Parts(std::span<const KeyTile> tiles, const Sizes& sizes, Index key_span) {
    for (std::size_t t = 0; t < tiles.size(); ++t)
      for (Index span : spans_of(tiles[t], key_span)) {
        all.push_back({static_cast<Index>(t), span, room});
        room += static_cast<Index>(tiles[t].rows.size()) * sizes.partial;
      }
  }
};

// All spans of all tiles spread over threads, then combined in ascending order: the same sums as walk_tile.
void walk_parts(std::span<const KeyTile> tiles, const Parts& parts, const KeyRule& rule, const Sizes& sizes,
                const Grids& grids, const Compute& compute) {
  const Kernels& k = kernels(compute);
  Arena::Scope scope(scratch());
  float* partials = scope.take(parts.room);
  parallel_for(compute.threads, static_cast<Index>(parts.all.size()), [&](Index i) {
    const Part& part = parts.all[static_cast<std::size_t>(i)];
    Arena::Scope own(scratch());
    SpanWalk walk(tiles[static_cast<std::size_t>(part.tile)], rule, sizes, grids.key_block, k, own);
    walk.run(part.span * grids.key_span, (part.span + 1) * grids.key_span, partials + part.partials);
  });
  parallel_for(compute.threads, static_cast<Index>(tiles.size()), [&](Index t) {
    Arena::Scope own(scratch());
    const Partial total(own.take(sizes.partial));
    const auto rows = tiles[static_cast<std::size_t>(t)].rows;
    for (Index r = 0; r < static_cast<Index>(rows.size()); ++r) {
      const QueryRow& row = rows[static_cast<std::size_t>(r)];
      start_row(row, total, rule, sizes);
      for (const Part& part : parts.all)
        if (part.tile == t)
          combine(total, Partial(partials + part.partials + r * sizes.partial), rule, sizes, k);
      finish_row(row, total, rule, sizes, k);
    }
  });
}

}  // namespace

void walk_keys(std::span<const KeyTile> tiles, const KeyRule& rule, Index key_width, Index value_width,
               const Grids& grids, const Compute& compute, std::span<const KeyLevel> levels) {
  assert(grids.key_span % grids.key_block == 0);
  const Sizes sizes(rule, key_width, value_width, levels);
  const auto count = static_cast<Index>(tiles.size());
  // Few tiles (decoding) and a long context: the spans keep the threads busy, at the price of room for their
  // partials.
  if (compute.threads > 1 && count < 2 * compute.threads) {
    const Parts parts(tiles, sizes, grids.key_span);
    if (parts.room <= kMostPartials) return walk_parts(tiles, parts, rule, sizes, grids, compute);
  }
  parallel_for(compute.threads, count, [&](Index i) {
    walk_tile(tiles[static_cast<std::size_t>(i)], rule, sizes, grids, kernels(compute));
  });
}

}  // namespace plait
