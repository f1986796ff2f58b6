// The executor: rows of several sequences, ragged, in one walk over the nodes, so that each weight is read
// once.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/run/edit_plan.h"
#include "runtime/run/model.h"
#include "runtime/run/state.h"
#include "runtime/run/walk.h"

namespace plait {

// One sequence as the executor sees it: a state per node and a position. Copy = fork.
struct Sequence {
  explicit Sequence(const Model& model, Index rollback_depth = 0, std::shared_ptr<const EditPlan> plan = {});
  std::vector<State> states;  // by node
  Index position = 0;
  std::shared_ptr<const EditPlan> plan;  // null = no edits
};

enum class Want { none, last, all };  // which rows' logits

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

struct RunOptions {
  Compute compute;
  Index row_block = 512;  // rows per pass: bounds activation memory, changes no bit
  Observer observer = {};
  InnerWatches watches = {};
};

// Throws Error if the model is an encoder.
void check_causal(const Model& model);

// Throws Error naming the first token outside the model's vocabulary.
void check_tokens(const Model& model, std::span<const Token> tokens);

// Appends every item's tokens to its sequence. Throws Error on a token outside the vocabulary before anything
// is run. Each sequence may occur once. If an exception leaves this function, the sequences are unusable.
void run_batch(const Model& model, std::span<const Item> items, const RunOptions& options,
               const LogitSink& sink);

}  // namespace plait
