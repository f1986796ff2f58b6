// The softmax of walks that read cached keys in blocks of 64 absolute positions, a row's own block first:
// which keys of a block each row sees, and one running maximum, mass and sum of values per row. What a logit
// is belongs to the walk (path_walk.h, wall_attention.cc).
#pragma once

#include <span>
#include <vector>

#include "layers/attention/visibility.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/attention.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/layer.h"

namespace plait {

inline constexpr Index kWalkBlock = 64;  // the pages of a log

// Rows of one segment in one block.
struct BlockPart {
  const Segment* segment;
  Index first_row, position, rows;
  Index place() const { return position % kWalkBlock; }
};

std::vector<BlockPart> block_parts(std::span<const Segment> segments);

// The part's rows of some query heads, heads outermost.
class BlockSoftmax {
 public:
  // keys: their log, with the part's own rows; the part is borrowed.
  BlockSoftmax(const BlockPart& part, Index first_head, Index heads, Index value_width, const Log& keys,
               const Kernels& k, Arena::Scope& scope, const Sight& sight = {});

  // Before the first block: a logit of every row that has no value.
  void start(float logit);

  Index rows() const { return sums_.rows; }
  Index batch_row(Index r) const { return part_.first_row + r % part_.rows; }
  Index position(Index r) const { return part_.position + r % part_.rows; }
  Index head(Index r) const { return first_head_ + r / part_.rows; }

  // Beginnings of the first and the last block to enter; the last is above the first if no row sees a key.
  Index newest_block() const { return part_.position / kWalkBlock * kWalkBlock; }
  Index oldest_block() const { return oldest_ / kWalkBlock * kWalkBlock; }
  // Goes to the block that begins at `block`; false if no row sees a key of it.
  bool enter(Index block);

  // Of the block entered: whether it is the rows' own; how many of its rows lie up to row r.
  bool own() const { return block_ + kWalkBlock > part_.position; }
  Index limit(Index r) const { return own() ? position(r) - block_ + 1 : kWalkBlock; }
  // The keys row r sees, as places in the block.
  std::span<const KeyRange> runs(Index r) const {
    const std::size_t first = first_run_[static_cast<std::size_t>(r)],
                      last = first_run_[static_cast<std::size_t>(r) + 1];
    return {runs_.data() + first, last - first};
  }

  // y_r += sum_{s < limit(r)} x_rs rows_s, s ascending. x [rows(), limit], y [rows(), n]
  void add_products(View<const float> x, const float* rows, Index stride, View<float> y) const;
  // Takes the block's keys: logits [rows(), kWalkBlock] become numerators; values [kWalkBlock][stride].
  void add(View<float> logits, const float* values, Index stride);
  // o [rows of the batch, all heads * value_width] := sums / mass, 0 for a row that saw no key.
  void finish(View<float> o) const;

 private:
  void weigh(Index r, float* s);
  void gather(View<const float> weights, const float* values, Index stride);

  const BlockPart& part_;
  Index first_head_;
  const Kernels& k_;
  View<float> sums_;   // [rows, value_width] of numerator times value
  View<float> lanes_;  // [rows, 16] of numerators
  std::vector<float> maximum_;
  std::vector<std::vector<KeyRange>> visible_;  // by row
  std::vector<std::vector<KeyRange>> muted_;    // by head
  std::vector<KeyRange> runs_;                  // of all rows, in the block entered
  std::vector<std::size_t> first_run_;          // by row, and their number
  bool whole_ = false;                          // every row sees all keys up to its limit
  Index oldest_, block_ = 0;
};

}  // namespace plait
