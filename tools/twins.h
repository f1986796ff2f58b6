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
  const Matrix& logits() const { return outputs_.back(); }  // once the last node has run

 private:
  const Model& model_;
  std::vector<Matrix> outputs_;  // those that a later node reads
  std::vector<int> readers_;
};

// Logits [tokens, vocab] after every token of a sequence.
Matrix reference_logits(const Model& model, std::span<const Token> tokens);

}  // namespace plait
