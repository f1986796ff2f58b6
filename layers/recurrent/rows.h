// Rows of a batch as the recurrent kinds walk them.
#pragma once

#include <span>

#include "runtime/run/layer.h"

namespace plait {

// Calls body(first_row, rows) for the rows the segments cover, neighbouring segments joined: one token of
// each of sixteen streams is one product over sixteen rows, and each weight is read once.
template <class Body>
void for_each_block(std::span<const Segment> segments, Body&& body) {
  Index first = 0, rows = 0;
  for (const Segment& segment : segments) {
    if (rows > 0 && segment.first_row != first + rows) {
      body(first, rows);
      rows = 0;
    }
    if (rows == 0) first = segment.first_row;
    rows += segment.rows;
  }
  if (rows > 0) body(first, rows);
}

template <class T>
View<T> rows_of(const Segment& segment, const View<T>& all) {
  return all.slice_rows(segment.first_row, segment.rows);
}

}  // namespace plait
