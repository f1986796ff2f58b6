// The walk over a model's nodes that the executor (batch.h) and the wavefront (wavefront.h) share.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "runtime/base/arena.h"
#include "runtime/run/edit_plan.h"
#include "runtime/run/model.h"

namespace plait {

// Consecutive rows of one sequence, or of one variant of it, in a walk.
struct Slice {
  const EditPlan* plan = nullptr;  // null = no edits
  State* state = nullptr;          // of the node that is run next; null for layers without fields
  Index position = 0, first_row = 0, rows = 0;
  Origin origin = Origin::given;
  Index clean_row = -1;  // first row of the same tokens in the run without edits; -1 = there is none
};

// Called after each node of each walk with its ports and the segments it ran; what verify reads.
using Observer = std::function<void(int node, const Ports& ports, std::span<const Segment> segments)>;

// Who is told the inner values of a node's rows that carry no edits; null = nobody.
using InnerWatches = std::function<InnerWatch*(int node)>;

// Node outputs of one walk. A buffer goes back to the pool after its last reader.
class Workspace {
 public:
  explicit Workspace(const Model& model);

  View<float> open(int node, Index rows);
  std::vector<View<const float>> inputs(int node) const;
  void close(int node);  // gives back what nobody after `node` reads
  // Copies rows [from, from + rows) of every output somebody still reads to [to, to + rows).
  void copy_rows(Index from, Index to, Index rows);
  // Columns of all outputs that are alive at once, at most.
  Index widest() const;

 private:
  std::size_t size() const { return static_cast<std::size_t>(model_.node_count()); }
  void release(int node);

  const Model& model_;
  std::vector<View<float>> views_;
  std::vector<int> last_use_;
  std::vector<Buffer> held_;
  std::map<Index, std::vector<Buffer>> pool_;
};

// Runs nodes on slices. Every row is computed once, whatever it stands beside.
class Walk {
 public:
  Walk(const Model& model, const Compute& compute, Observer observer = {}, InnerWatches watches = {});

  // One node over all rows of all slices; `ports` covers them. States advance to the end of their slice.
  void run_node(int node, std::span<const Slice> slices, const Ports& ports);

  // The output node on chosen rows, each a slice of one row of the workspace: [rows.size(), vocab], in
  // `scope`.
  View<float> gathered_output(std::span<const Slice> rows, const Workspace& workspace,
                              std::span<const Token> tokens, Arena::Scope& scope);

  // Work since it was last asked for: multiplications by weights, without those of the output node, of which
  // one row costs `row_cost()`. From 0 each time, so that the same walk has the same number to the last bit.
  double take_multiplications() { return std::exchange(work_, 0.0); }
  double row_cost() const;
  double output_row_cost() const;

 private:
  struct Placed {  // a piece and where its rows lie
    Piece piece;
    const Slice* slice;
    Index first_row;
  };
  void run_pieces(int node, std::span<Placed* const> pieces, const Ports& ports);
  void run_layer(int node, const Ports& ports, std::span<const Segment> segments);
  State* prepare(int node, const Placed& placed);

  const Model& model_;
  Context context_;
  Observer observer_;
  InnerWatches watches_;
  std::vector<Index> multiplications_;  // by node: those a row costs, about
  double work_ = 0;
};

}  // namespace plait
