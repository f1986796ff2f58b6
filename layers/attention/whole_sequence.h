// Walks (runtime/kernels/attention.h) in which every query sees every key: what the encoder-only kinds are
// made of. Keys lie in arrays instead of a cache.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "runtime/base/arena.h"
#include "runtime/kernels/attention.h"

namespace plait {

// Columns of rows [n, heads * width], of which head h of a walk reads those of head h / group.
struct HeadRows {
  View<const float> rows;
  Index width = 0, group = 1;
};

class KeyArray final : public KeyCache {
 public:
  // Keys are copied into `scope`, values and side are borrowed. values: no rows = none; side [heads, keys],
  // no rows = none.
  KeyArray(const HeadRows& keys, const HeadRows& values, View<const double> side, Arena::Scope& scope);

  KeyPage page(Index position, Index head) const override;
  Index count() const { return count_; }
  Index key_width() const { return width_; }
  Index value_width() const { return values_.width; }

 private:
  Index count_, width_, group_, stride_;
  float* columns_;  // [heads * width, stride]
  HeadRows values_;
  View<const double> side_;
};

class WholeTiles {
 public:
  explicit WholeTiles(Index num_heads) : num_heads_(num_heads) {}

  // side [num_heads, queries] or no rows; out [queries, num_heads * columns] or no rows, where the rule puts
  // its results elsewhere. All of it must outlive the tiles.
  void add(const KeyArray& keys, const HeadRows& queries, View<const double> side, View<float> out);
  std::span<const KeyTile> all() const { return tiles_; }

 private:
  Index num_heads_;
  std::deque<KeyRange> ranges_;
  std::deque<std::vector<QueryRow>> rows_;
  std::vector<KeyTile> tiles_;
};

}  // namespace plait
