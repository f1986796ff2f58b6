#include "layers/attention/tiles.h"

#include <algorithm>

namespace plait {

namespace {

// What `log` holds from `position` on, the first channel being `channel`.
CachedElements elements(const Log& log, Index position, Index channel) {
  const Index at = position % log.page_rows();
  const bool columns = log.order() == Field::Order::columns;
  return CachedElements{log.page<std::byte>(position), log.stride(), log.dtype()}.from(
      columns ? channel * log.stride() + at : at * log.stride() + channel);
}

}  // namespace

KeyPage LogCache::page(Index position, Index kv_head) const {
  if (!keys_.page<std::byte>(position) || !values_.page<std::byte>(position)) return {};
  const Index key = position % keys_.page_rows(), value = position % values_.page_rows();
  KeyPage page;
  page.count = std::min(keys_.page_rows() - key, values_.page_rows() - value);
  page.keys = elements(keys_, position, kv_head * heads_.head_dim);
  page.keys_in_rows = keys_.order() == Field::Order::rows;
  page.values = elements(values_, position, kv_head / heads_.keys_per_value * heads_.value_head_dim);
  if (side_) {
    const Index side = position % side_->page_rows();
    page.count = std::min(page.count, side_->page_rows() - side);
    page.side_stride = side_->stride();
    page.side = side_->page<double>(position) + side;
  }
  return page;
}

std::span<const KeyRange> Tiles::Visible::of(Index row) const {
  const auto r = static_cast<std::size_t>(row);
  return {ranges.data() + first[r], first[r + 1] - first[r]};
}

const Tiles::Visible& Tiles::visible_rows(const Visibility& visibility, const Segment& segment) {
  Visible& rows = visible_.emplace_back();
  for (Index r = 0; r < segment.rows; ++r) {
    rows.first.push_back(rows.ranges.size());
    visibility.append(segment.position + r, rows.ranges);
  }
  rows.first.push_back(rows.ranges.size());
  rows.muted.assign(visibility.muted().begin(), visibility.muted().end());
  return rows;
}

std::vector<const Tiles::Visible*> Tiles::visible_heads(const Segment& segment, const Source& source) {
  const auto heads = static_cast<std::size_t>(heads_.num_heads);
  std::vector<Visibility> all;
  std::vector<const Visible*> visible;
  for (std::size_t h = 0; h < heads; ++h) {
    all.emplace_back(source.sight, segment, static_cast<Index>(h), source.keys.present());
    const auto same =
        std::find_if(all.begin(), all.end() - 1, [&](const Visibility& v) { return v.same(all[h]); });
    visible.push_back(same == all.end() - 1 ? &visible_rows(all[h], segment)
                                            : visible[static_cast<std::size_t>(same - all.begin())]);
  }
  return visible;
}

std::span<const KeyRange> Tiles::near(const Source& source, Index head, Index position, double side,
                                      std::span<const KeyRange> visible) {
  if (!source.furthest || visible.empty() || visible.back().end != position + 1) return visible;
  const auto is_near = [&](Index key) {
    const Log& log = *source.side;
    return log.page<double>(key)[head * log.stride() + key % log.page_rows()] - side <= *source.furthest;
  };
  std::vector<KeyRange>& kept = near_.emplace_back(visible.begin(), visible.end());
  while (!kept.empty() && !is_near(kept.front().end - 1)) kept.erase(kept.begin());
  if (kept.empty()) return kept;
  Index far =
      kept.front().begin - 1;  // the last key that is not near, in the first range that has a near one
  for (Index near = kept.front().end - 1; near - far > 1;) {
    const Index middle = far + (near - far) / 2;
    (is_near(middle) ? near : far) = middle;
  }
  kept.front().begin = far + 1;
  return kept;
}

// A tile holds some positions of all query heads of a group, heads outermost, so that rows that see the same
// keys or one key more than the row before are neighbours.
void Tiles::add(const Segment& segment, const Source& source, View<const float> q, View<float> out) {
  const Index group = heads_.group(), d = heads_.head_dim;
  const LogCache& cache = caches_.emplace_back(source.keys, source.values, source.side, heads_);
  const std::vector<const Visible*> visible = visible_heads(segment, source);
  const Index step = std::max<Index>(1, kTileRows / group);
  for (Index kv = 0; kv < heads_.num_kv_heads; ++kv)
    for (Index begin = 0; begin < segment.rows; begin += step) {
      std::vector<QueryRow>& rows = rows_.emplace_back();
      for (Index h = kv * group; h < (kv + 1) * group; ++h)
        for (Index r = begin; r < std::min(begin + step, segment.rows); ++r) {
          const Index row = segment.first_row + r;
          const double side = source.sides.data ? source.sides(row, h) : 0.0;
          rows.push_back(
              {q.row(row) + h * d, out.row(row) + h * out_width_, segment.position + r, h,
               near(source, h, segment.position + r, side, visible[static_cast<std::size_t>(h)]->of(r)), side,
               visible[static_cast<std::size_t>(h)]->muted,
               source.seconds.data ? source.seconds.row(row) + h * d : nullptr,
               source.numbers.data ? source.numbers.row(row) : nullptr});
        }
      tiles_.push_back({&cache, kv, rows});
    }
}

}  // namespace plait
