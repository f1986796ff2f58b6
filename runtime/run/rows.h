// Walking over the rows that segments cover.
#pragma once

#include <algorithm>
#include <span>

#include "runtime/base/parallel.h"
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

// Calls body(row) for rows [first, first + rows), spread over threads in groups: body works on one row only,
// so the grouping is of no consequence to the result.
template <class Body>
void for_each_row(Index first, Index rows, int threads, Body&& body) {
  constexpr Index kGroup = 16;
  parallel_for(threads, ceil_div(rows, kGroup), [&](Index group) {
    const Index end = first + std::min(rows, (group + 1) * kGroup);
    for (Index row = first + group * kGroup; row < end; ++row) body(row);
  });
}

}  // namespace plait
