// Interventions on the matrix that is a head's state: state/{rank, noise, cast}.
#pragma once

#include "runtime/run/layer.h"

namespace plait {

// A head's matrix in panels of 32 columns, one after the other, each [rows][its columns]. A last panel of
// less than 32 columns is `padded` to 32 or as narrow as it is.
struct StateMatrix {
  enum class Last { padded, narrow };
  float* data = nullptr;
  Index rows = 0, cols = 0;
  Last last = Last::padded;
  // The row of the panel that begins at column `c`.
  float* row(Index c, Index r) const {
    return data + c * rows + r * (last == Last::padded ? 32 : std::min<Index>(32, cols - c));
  }
};

// Whether the segment has a state/{rank, noise, cast} applied that often to that head, or to any.
bool edits_state(const Segment& segment, Every every, Index head);
bool edits_state(const Segment& segment, Every every);
// Applies them in the order of the edits. `position`: tokens absorbed so far; `part` tells a head's matrices
// apart. All arithmetic is in f64 and plain loops, so its bits depend on nothing but the matrix.
void edit_state(const Segment& segment, Every every, Index head, Index position, Index part,
                const StateMatrix& matrix);

// The matrix of rank at most `rank` nearest to it; as it is when `rank` is no restriction.
void truncate(const StateMatrix& matrix, Index rank);
// Its singular values, of the shorter side, in no order.
std::vector<double> singular_values(const StateMatrix& matrix);

}  // namespace plait
