// The executor: rows of several sequences, ragged, in one walk over the nodes, so that each weight is read
// once.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/run/edit.h"
#include "runtime/run/model.h"
#include "runtime/run/state.h"

namespace plait {

// Edits resolved against a model: which node they touch and whether the executor or the layer applies them.
// Throws a sentence when a node, a site or an operator does not exist there. Immutable; shared by forks.
class EditPlan {
 public:
  EditPlan(const Model& model, EditList edits);
  EditPlan(const EditPlan&) = delete;  // entries point into the list
  EditPlan& operator=(const EditPlan&) = delete;
  const EditList& edits() const { return edits_; }

  enum class Action { inner, zero, scale, skip, pass, reset };
  struct Entry {
    const Edit* edit;
    Action action;
  };
  std::span<const Entry> of(int node) const { return entries_[static_cast<std::size_t>(node)]; }

 private:
  class Builder;
  EditList edits_;
  std::vector<std::vector<Entry>> entries_;
};

// One sequence as the executor sees it: a state per node and a position. Copy = fork.
struct Sequence {
  explicit Sequence(const Model& model, Index rollback_depth = 0);
  std::vector<State> states;  // by node
  Index position = 0;
  std::shared_ptr<const EditPlan> plan;  // null = no edits
};

enum class Want { none, last, all };   // which rows' logits
enum class Origin { given, sampled };  // sampled: tokens the sampler produced (phase decode)

// Tokens to append to a sequence.
struct Item {
  Sequence* sequence;
  std::span<const Token> tokens;
  Want want = Want::last;
  Origin origin = Origin::given;
};

// logits [vocab] after the token at `position` of items[item]; rows of one item arrive in ascending position.
// The span is valid during the call.
using LogitSink = std::function<void(std::size_t item, Index position, std::span<const float> logits)>;
// Called after each node of each pass with its ports and the segments it ran; what verify reads.
using Observer = std::function<void(int node, const Ports& ports, std::span<const Segment> segments)>;

struct RunOptions {
  Compute compute;
  Index row_block = 512;  // rows per pass: bounds activation memory, changes no bit
  Observer observer = {};
};

// Appends every item's tokens to its sequence. Throws Error on a token outside the vocabulary before anything
// is run. Each sequence may occur once. If an exception leaves this function, the sequences are unusable.
void run_batch(const Model& model, std::span<const Item> items, const RunOptions& options,
               const LogitSink& sink);

}  // namespace plait
