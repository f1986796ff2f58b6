// The walk of a recurrence over chunks: absolute multiples of the grid, whatever the segments.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/layer.h"

namespace plait {

inline Field gridded_field(const char* name, Field::Kind kind, Shape shape, Field::Order order, Index grid) {
  Field field;
  field.name = name;
  field.kind = kind;
  field.shape = std::move(shape);
  field.order = order;
  field.grid = grid;
  return field;
}

// Rows of one segment that lie in one chunk.
struct ChunkRows {
  Index row = 0;  // the first one's row in the batch
  Index rows = 0;
  Index first = 0;  // the first one's place in the chunk
  Index end() const { return first + rows; }
};

// Runs all rows of all segments through a core, chunk by chunk; (segment, unit) pairs of one step are spread
// over threads. A core has
//   Rows                                         views of all rows of the batch
//   Bound bind(State&) const                     pointers into one sequence's fields
//   Index grid() const, units() const            units are independent parts (heads) of the recurrence
//   absorb(Bound, ChunkRows, unit, Rows, Kernels) const   writes the open rows and the outputs of some rows
//   fold(Bound, unit, Kernels) const             folds a complete chunk's open rows into the anchors
template <class Core>
class ChunkWalk {
 public:
  ChunkWalk(const Core& core, std::span<const Segment> segments) : core_(core) {
    for (const Segment& segment : segments)
      if (segment.rows > 0) parts_.push_back({&segment, {}, {}, 0, false, false});
  }

  void run(const typename Core::Rows& rows, const Compute& compute) {
    const Kernels& k = kernels(compute);
    while (step()) {
      const Index units = core_.units();
      parallel_for(compute.threads, static_cast<Index>(parts_.size()) * units, [&](Index i) {
        const Part& part = parts_[static_cast<std::size_t>(i / units)];
        if (part.fold) core_.fold(part.bound, i % units, k);
        if (part.now.rows > 0) core_.absorb(part.bound, part.now, i % units, rows, k);
      });
    }
  }

 private:
  struct Part {
    const Segment* segment;
    typename Core::Bound bound;
    ChunkRows now;  // what this step absorbs
    Index done;     // rows absorbed, those of this step included
    bool fold;      // this step begins with the fold of the chunk the last step completed
    bool complete;  // this step completes a chunk
  };

  // Plans the next step; false when nothing is left. A chunk is folded by the step after the one that
  // completed it: one start of the threads per chunk instead of two.
  bool step() {
    for (Part& part : parts_) {
      const Segment& segment = *part.segment;
      const Index position = segment.position + part.done;
      part.fold = part.complete;
      if (part.fold) segment.state->before_fold(position, segment.position + segment.rows);
      part.now.row = segment.first_row + part.done;
      part.now.first = position % core_.grid();
      part.now.rows = std::min(segment.rows - part.done, core_.grid() - part.now.first);
      part.complete = part.now.rows > 0 && part.now.end() == core_.grid();
    }
    std::erase_if(parts_, [](const Part& part) { return !part.fold && part.now.rows == 0; });
    for (Part& part : parts_) {
      part.bound = core_.bind(*part.segment->state);
      part.done += part.now.rows;
    }
    return !parts_.empty();
  }

  const Core& core_;
  std::vector<Part> parts_;
};

// The executor's fold of a chunk that a hole completed.
template <class Core>
void fold_chunk(const Core& core, State& state, const Compute& compute) {
  const auto bound = core.bind(state);
  parallel_for(compute.threads, core.units(), [&](Index unit) { core.fold(bound, unit, kernels(compute)); });
}

}  // namespace plait
