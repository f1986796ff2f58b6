// Many variants of one model over the same tokens in one walk over the nodes (ablation-and-streaming 4.2).
//
// Variants that have been treated alike so far share their rows: a variant gets rows of its own at the first
// node where its edits differ, so what lies before is computed once, and variants whose first edits agree
// share those too. Each weight is read once per tile. Every variant's logits equal those of its own run, bit
// for bit.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "runtime/run/batch.h"
#include "runtime/run/edit_plan.h"
#include "runtime/run/model.h"

namespace plait {

// What all variants have become after some tokens. A value: a copy is a fork (questions after one few-shot
// prefix).
class VariantStates {
 public:
  Index position() const { return position_; }

 private:
  friend class Wavefront;
  struct Node {
    std::vector<int> class_of;  // by variant: which state is its own
    std::vector<State> states;
  };
  Index position_ = 0;
  std::vector<Node> nodes_;  // empty before the first token
};

struct VariantDocument {
  std::span<const Token> tokens;
  std::span<const Index> scored;  // ascending offsets into `tokens`: the logits after these are wanted
  VariantStates* states =
      nullptr;  // where it goes on from, and where what became of it is left; null = neither
};

// Logits of some variants after one token.
struct VariantLogits {
  std::size_t document;
  Index position;
  std::span<const std::vector<int>>
      variants;              // by row: which variants it belongs to; row 0's include variant 0
  View<const float> logits;  // [rows, vocab]
};
// For one document positions ascend as long as the variants stay the same; all variants of a position come in
// one call or, where memory forbids, in several, each with the row of variant 0 first.
using VariantSink = std::function<void(const VariantLogits& logits)>;

struct WavefrontOptions {
  Compute compute;
  std::size_t memory = std::size_t{1} << 30;  // bytes for activations, states and logits together
};

struct WavefrontCost {
  double rows = 0;   // one unit: a row through all nodes but the output node, without edits
  Index tokens = 0;  // of the documents
  Index tiles = 0;
  // One unit: all rows of the documents, each once.
  double forwards_equiv() const { return tokens > 0 ? rows / static_cast<double>(tokens) : 0; }
  WavefrontCost& operator+=(const WavefrontCost& more);
  bool operator==(const WavefrontCost&) const = default;
};

class Wavefront {
 public:
  // plans[0] is the baseline (null = no edits), which every other variant is compared with. Throws if memory
  // does not suffice for the baseline and one variant at the least number of rows.
  Wavefront(std::shared_ptr<const Model> model, std::vector<std::shared_ptr<const EditPlan>> plans,
            WavefrontOptions options);

  // Runs every document with every variant. Throws Error on a token outside the vocabulary before anything is
  // run. If an exception leaves this function, the documents' states are unusable.
  void run(std::span<const VariantDocument> documents, const VariantSink& sink);

  // One variant's own sequence, to go on alone: generation.
  Sequence sequence(const VariantStates& states, int variant) const;

  // Bytes of one variant's states after so many tokens, at most.
  // Of one variant after so many tokens: all nodes together, where states are kept, or of the largest node.
  enum class Kept { states, nothing };
  std::size_t state_bytes(Index tokens, Kept kept) const;

  int variant_count() const { return static_cast<int>(plans_.size()); }
  // Of the runs since the cost was last taken.
  const WavefrontCost& cost() const { return cost_; }
  WavefrontCost take_cost() { return std::exchange(cost_, {}); }

 private:
  class Tile;
  struct Shape {  // of tiles: how many variants besides the baseline, rows of one document, documents
    Index variants, rows, documents;
  };
  Shape tile_shape(std::span<const VariantDocument> documents) const;
  void run_documents(std::span<const VariantDocument> documents, std::size_t first, const Shape& shape,
                     const VariantSink& sink);
  // The states of some variants out of all, and back.
  static VariantStates chosen(const VariantStates* states, std::span<const int> variants);
  void merge(VariantStates part, std::span<const int> variants, VariantStates& whole) const;
  Index classes_of(std::span<const int> variants) const;
  std::vector<Index> position_cuts(std::span<const VariantDocument> documents, Index rows) const;

  std::shared_ptr<const Model> model_;
  std::vector<std::shared_ptr<const EditPlan>> plans_;
  WavefrontOptions options_;
  std::vector<std::vector<int>> keys_;  // by node, variant: equal entries have equal keys, 0 = none
  std::vector<int> order_;  // variants but 0, those with a long common beginning beside each other
  Walk walk_;
  bool clean_baseline_ = false;  // it has no edits, so that others may take from it what norm/freeze wants
  Index row_width_ = 0;          // floats a row holds in the workspace
  WavefrontCost cost_;
};

}  // namespace plait
