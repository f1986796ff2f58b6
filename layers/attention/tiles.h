// Queries of the segments of a batch, cut into tiles for the walk over cached keys.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "layers/attention/visibility.h"
#include "layers/reference/projection.h"
#include "runtime/kernels/attention.h"
#include "runtime/run/layer.h"

namespace plait {

// The logs of one state as the walk reads them.
class LogCache final : public KeyCache {
 public:
  // keys: either order, [num_kv_heads * head_dim]; values: order rows, [num_value_heads() * value_head_dim],
  // may be the same log, of which each reads its first channels;
  // side: f64, order columns, [num_heads], or null. Borrows.
  LogCache(const Log& keys, const Log& values, const Log* side, const ProjectionSettings& heads)
      : keys_(keys), values_(values), side_(side), heads_(heads) {}
  KeyPage page(Index position, Index kv_head) const override;

 private:
  const Log& keys_;
  const Log& values_;
  const Log* side_;
  const ProjectionSettings& heads_;
};

class Tiles {
 public:
  // out_width: columns of a head's output, value_head_dim unless a readout gives more.
  explicit Tiles(const ProjectionSettings& heads, Index out_width) : heads_(heads), out_width_(out_width) {}

  // What the rows of a segment see; `sides` [rows, num_heads] (of the batch) or empty.
  struct Source {
    const Log& keys;
    const Log& values;
    const Log* side;
    Sight sight;
    View<const double> sides;
    View<const float> numbers;            // rows of QueryRow::numbers, or empty
    View<const float> seconds;            // second queries, laid out like q, or empty
    std::optional<double> furthest = {};  // a row sees keys whose side is at most this above its own
  };
  // q [rows, num_heads * head_dim] and out [rows, num_heads * out_width] of the batch; the segment's own
  // keys are in the logs already. The views and logs must outlive the tiles.
  void add(const Segment& segment, const Source& source, View<const float> q, View<float> out);

  std::span<const KeyTile> all() const { return tiles_; }

 private:
  // Visible ranges of all rows of a segment.
  struct Visible {
    std::vector<KeyRange> ranges;
    std::vector<std::size_t> first;  // rows + 1 offsets
    std::vector<KeyRange> muted;     // of every row
    std::span<const KeyRange> of(Index row) const;
  };
  const Visible& visible_rows(const Visibility& visibility, const Segment& segment);
  // What each head sees; heads that see the same share it.
  std::vector<const Visible*> visible_heads(const Segment& segment, const Source& source);

  // The part of what the row at `position` sees whose sides are near enough; sides fall with the position.
  // All of it where the row does not see its own key: what is far is far from that.
  std::span<const KeyRange> near(const Source& source, Index head, Index position, double side,
                                 std::span<const KeyRange> visible);

  const ProjectionSettings& heads_;
  Index out_width_;
  std::deque<LogCache> caches_;
  std::deque<Visible> visible_;
  std::deque<std::vector<KeyRange>> near_;
  std::deque<std::vector<QueryRow>> rows_;
  std::vector<KeyTile> tiles_;
};

}  // namespace plait
