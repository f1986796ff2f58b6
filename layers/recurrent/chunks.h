// The walk of a recurrence over chunks: absolute multiples of the grid, whatever the segments.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/layer.h"
#include "runtime/run/state_matrix.h"

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

// When and why a state is edited: after `position` tokens, with the edits of a segment that come that often.
struct StateEdit {
  const Segment& segment;
  Every every;
  Index position;
};

// Runs all rows of all segments through a core; (segment, unit) pairs are spread over threads, each walks its
// chunks in order. A core has
//   Rows                                         views of all rows of the batch
//   Bound bind(State&) const                     pointers into one sequence's fields
//   Index grid() const, units() const            units are independent parts (heads) of the recurrence
//   absorb(Bound, ChunkRows, unit, Rows, Kernels) const   writes the open rows and the outputs of some rows
//   fold(Bound, unit, Kernels) const             folds a complete chunk's open rows into the anchors
//   edit_anchors(Bound, StateEdit, unit, Kernels) const   state/{rank, noise, cast} on the anchors; between
//                                                the rows of a chunk its open rows are folded first
// and, if it knows state/stale,
//   Past past(Bound) const, past(const State&, boundary) const   pointers into a chunk that is only read
//   outputs() const                              heads of Rows::o, the units' one after the other
//   read(Past, ChunkRows, head, Rows, Kernels) const   what the rows would have read from their places there
template <class Core>
class ChunkWalk {
 public:
  ChunkWalk(const Core& core, std::span<const Segment> segments) : core_(core) {
    for (const Segment& segment : segments)
      if (segment.rows > 0)
        parts_.push_back({&segment,
                          {},
                          0,
                          0,
                          false,
                          edits_state(segment, Every::token),
                          edits_state(segment, Every::chunk),
                          segment.edit(Site::state, Operator::stale) != nullptr});
  }

  void run(const typename Core::Rows& rows, const Compute& compute) {
    const Kernels& k = kernels(compute);
    for (const Part& part : parts_)
      if (part.edits_tokens) part.segment->state->overwrite(part.segment->position + part.segment->rows);
    while (step()) {
      const Index units = core_.units();
      parallel_for(compute.threads, static_cast<Index>(parts_.size()) * units,
                   [&](Index i) { walk(parts_[static_cast<std::size_t>(i / units)], i % units, rows, k); });
    }
  }

 private:
  struct Part {
    const Segment* segment;
    typename Core::Bound bound;
    Index begin, end;                 // rows of the segment that this step absorbs
    bool fold;                        // this step begins with the fold of the chunk the last step completed
    bool edits_tokens, edits_chunks;  // the state is edited after every token, after every fold
    bool stale;                       // some head reads an earlier state
  };

  // Plans the next step; false when nothing is left. All units stop where the state keeps what the next fold
  // overwrites (a stream with a rollback depth); otherwise one step takes all rows.
  bool step() {
    for (Part& part : parts_) {
      const Segment& segment = *part.segment;
      const Index last = segment.position + segment.rows, position = segment.position + part.end;
      part.fold = part.begin < part.end && position % core_.grid() == 0;
      if (part.fold) segment.state->before_fold(position, last);
      Index boundary = (position / core_.grid() + 1) * core_.grid();
      while (boundary < last && !segment.state->keeps(boundary, last)) boundary += core_.grid();
      part.begin = part.end;
      part.end = std::min(boundary, last) - segment.position;
    }
    std::erase_if(parts_, [](const Part& part) { return !part.fold && part.begin == part.end; });
    for (Part& part : parts_) part.bound = core_.bind(*part.segment->state);
    return !parts_.empty();
  }

  void walk(const Part& part, Index unit, const typename Core::Rows& rows, const Kernels& k) const {
    const Segment& segment = *part.segment;
    const Index grid = core_.grid();
    bool fold = part.fold;
    for (Index row = part.begin; fold || row < part.end;) {
      if (fold) core_.fold(part.bound, unit, k);
      if (fold && part.edits_chunks)
        core_.edit_anchors(part.bound, {segment, Every::chunk, segment.position + row}, unit, k);
      const Index first = (segment.position + row) % grid;
      const Index most = part.edits_tokens ? Index{1} : grid - first;
      const Index count = std::min(part.end - row, most);
      if (count > 0) {
        const ChunkRows now{segment.first_row + row, count, first};
        core_.absorb(part.bound, now, unit, rows, k);
        if (part.stale) read_stale(part, now, segment.position + row, unit, rows, k);
      }
      row += count;
      if (count > 0 && part.edits_tokens)
        core_.edit_anchors(part.bound, {segment, Every::token, segment.position + row}, unit, k);
      fold = count > 0 && first + count == grid && row < part.end;
    }
  }

  // state/stale: what the rows, the first one at `position`, read now becomes what they would have read n
  // tokens earlier; before the first token that is nothing.
  void read_stale(const Part& part, const ChunkRows& now, Index position, Index unit,
                  const typename Core::Rows& rows, const Kernels& k) const {
    if constexpr (requires { typename Core::Past; }) {
      const Index heads = core_.outputs() / core_.units(), width = rows.o.cols / core_.outputs();
      for (Index head = unit * heads; head < (unit + 1) * heads; ++head) {
        const Edit* edit = part.segment->edit(Site::state, Operator::stale, head);
        if (!edit) continue;
        for (Index done = 0, count = 0; done < now.rows; done += count) {
          const Index source = position + done - tokens_back(*edit, head);
          const Index place = source < 0 ? 0 : source % core_.grid();
          count = std::min(now.rows - done, source < 0 ? -source : core_.grid() - place);
          const ChunkRows then{now.row + done, count, place};
          if (source < 0)
            fill_rows(0, rows.o.slice_rows(then.row, count).slice_cols(head * width, width));
          else if (source - place == position - now.first)
            core_.read(core_.past(part.bound), then, head, rows, k);
          else
            core_.read(core_.past(*part.segment->state, source - place + core_.grid()), then, head, rows, k);
        }
      }
    }
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
