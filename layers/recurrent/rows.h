// Rows of a batch as the recurrent kinds walk them.
#pragma once

#include "runtime/run/layer.h"
#include "runtime/run/rows.h"

namespace plait {

// The rows of a segment.
template <class T>
View<T> rows_of(const Segment& segment, const View<T>& all) {
  return all.slice_rows(segment.first_row, segment.rows);
}

}  // namespace plait
