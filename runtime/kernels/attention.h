// The walk over cached keys, one order for every row (architecture section 4): blocks of `key_block` absolute
// positions ascending inside absolute spans of `key_span`; a span yields (maximum, 16 mass lanes,
// accumulators) and spans combine in ascending order, in prefill too, so that a long context may be split
// over threads. A key's lane is its absolute position mod 16. What a row yields depends on its position and
// visible keys only, never on the rows computed with it.
//
// What a logit means is the business of a KeyRule: softmax attention and its relatives, polynomial attention,
// and every other mechanism that is "weights times cached values" share this walk.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/numerics.h"
#include "runtime/base/tensor.h"
#include "runtime/base/view.h"
#include "runtime/kernels/kernels.h"

namespace plait {

// Positions [begin, end).
struct KeyRange {
  Index begin = 0, end = 0;
  bool operator==(const KeyRange&) const = default;
};

// Elements of a cache, f32, bf16 or f16; the walk widens narrow ones, which is exact.
struct CachedElements {
  const void* data = nullptr;
  Index stride = 0;
  DType dtype = DType::f32;

  CachedElements from(Index element) const {
    return {static_cast<const char*>(data) + element * static_cast<Index>(bytes_of(dtype)), stride, dtype};
  }
};

// Cached rows at `count` consecutive positions as one key/value head sees them; they begin at the position
// asked for.
struct KeyPage {
  Index count = 0;            // 0 = nothing is held there
  CachedElements keys;        // channel c of the i-th position: element c * stride + i
  bool keys_in_rows = false;  // it is element i * stride + c, like a value's: the walk turns them
  CachedElements values;      // channel c of the i-th position: element i * stride + c
  const double* side =
      nullptr;  // side column of query head h: side[h * side_stride + i]; null if there is none
  Index side_stride = 0;
};

class KeyCache {
 public:
  virtual ~KeyCache() = default;
  // Called from several threads. `count` is at least 1 where a row is held.
  virtual KeyPage page(Index position, Index kv_head) const = 0;
};

// One query of one head.
struct QueryRow {
  const float* query = nullptr;  // [key_width]
  float* out = nullptr;          // [value_width]
  Index position = 0, head = 0;
  std::span<const KeyRange> visible;     // ascending, disjoint, not empty ranges
  double side = 0;                       // what the rule compares the side column with
  std::span<const KeyRange> muted = {};  // visible keys whose weights become 0 after the mass was taken
  const float* second = nullptr;         // [key_width] a second query, of a rule with second logits
  const float* numbers = nullptr;        // what a rule's options took from the layer's input; the rule's own

  Index visible_count() const {
    Index count = 0;
    for (const KeyRange& range : visible) count += range.end - range.begin;
    return count;
  }
};

// What a row has gathered over all keys it sees.
struct RowSums {
  float maximum = 0;      // what numerators are relative to, of a rule that tracks it
  float minimum = 0;      // smallest logit (infinity without a key), of a rule that tracks it
  float mass = 0;         // sum of the numerators
  float second_mass = 0;  // sum of numerator times second logit
  double logits = 0;      // sum of the logits and of their squares, of a rule that gathers moments
  double squares = 0;
  const float* sums = nullptr;  // [accumulators][value_width]
};

// What becomes of one row's logits. All members are const and called from several threads.
class KeyRule {
 public:
  virtual ~KeyRule() = default;

  // True if numerators are taken relative to a running reference, the maximum (exp-like rules): when it
  // grows, mass and accumulators are multiplied by shrink(old, new).
  virtual bool tracks_maximum() const = 0;
  virtual bool tracks_minimum() const { return false; }
  // True if QueryRow::second times each key is wanted, unscaled: accumulator 1 then takes numerator times
  // that.
  virtual bool second_logits() const { return false; }
  // True if the sums of the logits and of their squares are wanted in f64, and nothing else: no numerators.
  virtual bool gathers_moments() const { return false; }
  // (maximum, mass) before any key; returns false when the row starts from nothing: (-infinity, 0).
  virtual bool start(const QueryRow& row, float& maximum, float& mass) const = 0;
  // In place: q.k of `count` consecutive keys from position `first` -> logits. side [count] or null.
  virtual void logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
                      const Kernels& k) const = 0;
  // The reference that suits s [count] logits; what it leaves in `room` [count] is what p holds when
  // numerators are asked for the same keys; the walk takes the greatest, or the sum where references add up:
  // then `shrink` is asked for the sum of one block or span, from 0, and numerators are relative to the end
  // of their block.
  virtual bool references_add() const { return false; }
  virtual float reference(const float* s, float* /*room*/, Index count, const Kernels& k) const {
    return k.maximum(s, count);
  }
  virtual float shrink(float before, float after, const Kernels& k) const {
    float factor = 0;
    k.exp_minus(&before, after, &factor, 1);
    return factor;
  }
  // s [count] logits -> p [count] numerators, whose sum is the mass. maximum: the reference; where references
  // add up, the sum over the keys behind these in their block.
  virtual void numerators(const QueryRow& row, float maximum, const float* s, float* p, Index count,
                          const Kernels& k) const = 0;
  // In place: numerators whose sum was taken -> weights of accumulator 0.
  virtual void settle(const float* /*s*/, float* /*p*/, Index /*count*/, const Kernels&) const {}

  // Accumulator 0 sums weight times value; a rule may ask for more, each with weights of its own.
  virtual Index accumulators() const { return 1; }
  virtual bool follows_maximum(Index /*accumulator*/) const { return tracks_maximum(); }
  // w [count]: weights of accumulator >= 1, from the logits and settled numerators of the same keys.
  virtual void weights(Index /*accumulator*/, const float* /*s*/, const float* /*p*/, float* /*w*/,
                       Index /*count*/, const Kernels&) const {}

  // -> row.out [value_width]. Called for every row; a row that saw no key has the mass as `start` left it and
  // zero sums.
  virtual void finish(const QueryRow& row, const RowSums& sums, Index value_width,
                      const Kernels& k) const = 0;
};

// Queries that share a cache and a key/value head. Rows may be in any order and of any query head.
struct KeyTile {
  const KeyCache* cache = nullptr;
  Index kv_head = 0;
  std::span<const QueryRow> rows;
};

// Tiles of about this many rows reuse a block of keys well; a hint for callers, without influence on bits.
inline constexpr Index kTileRows = 96;

// Channels [first, first + count) of q.k, which only keys in the query's own aligned block of `block`
// positions have.
struct KeyLevel {
  Index first, count, block;
};

// levels: empty, or what q.k is the sum of, channels ascending; a product without any level is 0.
void walk_keys(std::span<const KeyTile> tiles, const KeyRule& rule, Index key_width, Index value_width,
               const Grids& grids, const Compute& compute, std::span<const KeyLevel> levels = {});

}  // namespace plait
