#include "layers/attention/whole_sequence.h"

#include <algorithm>

namespace plait {

KeyArray::KeyArray(const HeadRows& keys, const HeadRows& values, View<const double> side, Arena::Scope& scope)
    : count_(keys.rows.rows),
      width_(keys.width),
      group_(keys.group),
      stride_(round_up(count_, 32)),
      columns_(scope.take(keys.rows.cols * stride_)),
      values_(values),
      side_(side) {
  for (Index c = 0; c < keys.rows.cols; ++c)
    for (Index j = 0; j < count_; ++j) columns_[c * stride_ + j] = keys.rows(j, c);
}

KeyPage KeyArray::page(Index position, Index head) const {
  KeyPage page;
  page.count = count_ - position;
  page.keys = {columns_ + head / group_ * width_ * stride_ + position, stride_};
  if (values_.rows.rows > 0)
    page.values = {values_.rows.row(position) + head / values_.group * values_.width, values_.rows.stride};
  if (side_.rows > 0) {
    page.side = side_.data + position;
    page.side_stride = side_.stride;
  }
  return page;
}

void WholeTiles::add(const KeyArray& keys, const HeadRows& queries, View<const double> side,
                     View<float> out) {
  const std::span<const KeyRange> visible(&ranges_.emplace_back(KeyRange{0, keys.count()}),
                                          keys.count() > 0 ? 1 : 0);
  const Index columns = out.cols / num_heads_;
  for (Index h = 0; h < num_heads_; ++h)
    for (Index begin = 0; begin < queries.rows.rows; begin += kTileRows) {
      std::vector<QueryRow>& rows = rows_.emplace_back();
      for (Index r = begin; r < std::min(begin + kTileRows, queries.rows.rows); ++r) {
        QueryRow row;
        row.query = queries.rows.row(r) + h / queries.group * queries.width;
        row.out = out.rows > 0 ? out.row(r) + h * columns : nullptr;
        row.position = r;
        row.head = h;
        row.visible = visible;
        row.side = side.rows > 0 ? side(h, r) : 0.0;
        rows.push_back(row);
      }
      tiles_.push_back({&keys, h, rows});
    }
}

}  // namespace plait
