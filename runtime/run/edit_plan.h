// Edits resolved against a model: which nodes they touch, and what the executor does there at which
// positions.
#pragma once

#include <span>
#include <vector>

#include "runtime/run/edit.h"
#include "runtime/run/model.h"
#include "runtime/run/recording.h"

namespace plait {

// Immutable; shared by forks.
class EditPlan {
 public:
  enum class Action {
    inner,   // the layer applies it
    output,  // the executor changes the node's output rows
    skip,    // the layer is not run, the output is zero, the state gets a hole
    pass,    // not run, the output is the first input
    reset,   // of the state, before a row
    swap,    // of the state, before a row
  };
  struct Entry {
    Edit edit;  // as the node sees it: strength folded in where it can be, `recorded` set
    Action action;
    bool operator==(const Entry&) const = default;
  };

  // Throws a sentence when a node, a site, an operator or a reference does not exist there.
  EditPlan(const Model& model, EditList edits, const References& references = {});
  EditPlan(const EditPlan&) = delete;  // pieces point into entries
  EditPlan& operator=(const EditPlan&) = delete;

  const EditList& edits() const { return edits_; }
  std::span<const Entry> of(int node) const { return entries_[static_cast<std::size_t>(node)]; }
  // What the node's state must remember for its edits to read.
  State::Memory memory(int node) const;
  // The node's state under its edits: where one window/set holds for all its heads and rows, logs without a
  // window of their own keep that window and its sinks only.
  std::vector<Field> fields(std::span<const Field> declared, int node) const;

 private:
  class Builder;
  EditList edits_;
  std::vector<std::vector<Entry>> entries_;
};

// Rows of one sequence under the same active edits of one node.
struct Piece {
  Index position, rows;
  std::vector<const EditPlan::Entry*> active;
  Edits inner;

  bool has(EditPlan::Action action) const;
};

// Rows [position, position + rows), cut where an edit begins, ends, resets or swaps. Pieces with nothing
// active are there too: together they are all rows, ascending.
std::vector<Piece> pieces_of(std::span<const EditPlan::Entry> entries, Index position, Index rows,
                             Origin origin);

// What the state of a node must remember for the edit to read; nothing (0 rows) unless it is a stale read.
// Whoever runs a layer under such an edit without a plan declares this by State::remember.
State::Memory memory_of(const Edit& edit);

// Whether the edit does anything at some position of [begin, end); keeping earlier states for later rows to
// read is something too.
bool touches(const Edit& edit, Index begin, Index end, Origin origin);

// Whether a reset or swap happens before the row at `position`.
bool happens_at(const Edit& edit, Index position);

// What the piece's output edits make of its rows, in the spec's order. rows [piece.rows, width], node's index
// in the model (a noise key).
void edit_output(const Piece& piece, int node, View<float> rows);

}  // namespace plait
