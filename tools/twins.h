// The second engine (architecture section 6): the double-precision twins of a model's nodes, one by one or
// chained from the tokens to the logits.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/run/model.h"

namespace plait {

class Twin;

using Matrix = std::vector<double>;  // [tokens, width]

// The twin of one node, over a whole sequence. Borrows the model and the tokens.
class TwinNode {
 public:
  TwinNode(const Model& model, int node, std::span<const Token> tokens);

  // inputs[i] [tokens, width of input node i]; returns [tokens, width of the node]
  Matrix run(const std::vector<Matrix>& inputs) const;
  const Twin& twin() const { return *twin_; }

 private:
  void run_rows(const std::vector<Matrix>& inputs, Index first, Index rows, Matrix& output) const;

  const Model& model_;
  int node_;
  std::span<const Token> tokens_;
  std::shared_ptr<Twin> twin_;
};

// Twins feeding twins, without any f32 in between. Nodes are run in the order of the graph.
class TwinChain {
 public:
  explicit TwinChain(const Model& model);

  void run(int node, const TwinNode& twin);
  // Of a node that has run and has readers to come, or of the last one.
  Matrix& output(int node) { return outputs_[static_cast<std::size_t>(node)]; }
  const Matrix& logits() const { return outputs_.back(); }  // once the last node has run

 private:
  const Model& model_;
  std::vector<Matrix> outputs_;  // those that a later node reads
  std::vector<int> readers_;
};

// Logits [tokens, vocab] after every token of a sequence.
Matrix reference_logits(const Model& model, std::span<const Token> tokens);

// How far the fast engine is from the twins: norm of the difference over norm of the expected rows, the
// largest over eight groups of rows, so that an error that grows along the sequence is not diluted by its
// beginning. NaN counts as infinite.
double group_error(std::span<const double> expected, std::span<const double> found, Index rows);

// The longest sum behind an output: a row of a weight, or a walk over the tokens of a layer that mixes rows.
Index longest_reduction(const Model& model, int node, Index tokens);

// How far it may be: bound_factor * eps * sqrt(longest reduction). Rounding errors of a chain of n operations
// add up like sqrt(n) steps of eps; the kind's page derives the factor, which covers the stages of its
// formula. Twice the unit roundoff of a narrow log is added: a value that lies within f32's error of the
// middle between two narrow ones may be rounded either way.
double exact_bound(const Model& model, int node, Index tokens);

}  // namespace plait
