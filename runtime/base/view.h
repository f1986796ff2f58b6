// Borrowed two-dimensional views of rows. A view owns nothing and never outlives its storage.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace plait {

using Index = std::ptrdiff_t;
using Token = std::int32_t;
using Shape = std::vector<Index>;

// Row-major [rows, cols]; row r starts at data + r * stride. A head is a column slice.
template <class T>
struct View {
  T* data = nullptr;
  Index rows = 0, cols = 0, stride = 0;

  View() = default;
  View(T* first, Index row_count, Index col_count, Index row_stride)
      : data(first), rows(row_count), cols(col_count), stride(row_stride) {}
  View(T* first, Index row_count, Index col_count) : View(first, row_count, col_count, col_count) {}
  // View<float> converts to View<const float>.
  template <class U>
  requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>) View(const View<U>& other)
      : View(other.data, other.rows, other.cols, other.stride) {}

  T* row(Index r) const {
    assert(0 <= r && r <= rows);
    return data + r * stride;
  }
  T& operator()(Index r, Index c) const {
    assert(0 <= r && r < rows && 0 <= c && c < cols);
    return data[r * stride + c];
  }
  View slice_rows(Index first, Index count) const {
    assert(0 <= first && 0 <= count && first + count <= rows);
    return {data + first * stride, count, cols, stride};
  }
  View slice_cols(Index first, Index count) const {
    assert(0 <= first && 0 <= count && first + count <= cols);
    return {data + first, rows, count, stride};
  }
};

inline Index round_up(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }
inline Index ceil_div(Index n, Index by) { return (n + by - 1) / by; }

}  // namespace plait
