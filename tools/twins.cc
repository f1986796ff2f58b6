#include "tools/twins.h"

#include <algorithm>
#include <utility>

#include "layers/reference/twin.h"

namespace plait {
namespace {

constexpr Index kRowSlice = 64;  // rows of a node without state that its twin takes at a time: bounds memory

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

}  // namespace

TwinNode::TwinNode(const Model& model, int node, std::span<const Token> tokens)
    : model_(model),
      node_(node),
      tokens_(tokens),
      twin_(model.kind(node).twin(*model.config(node), model.parameters(node))) {}

Matrix TwinNode::run(const std::vector<Matrix>& inputs) const {
  const auto total = static_cast<Index>(tokens_.size());
  Matrix output(at(total * model_.width(node_)));
  const bool stateless = model_.layer(node_).fields().empty();
  const Index step = stateless ? kRowSlice : total;
  for (Index first = 0; first < total; first += step)
    run_rows(inputs, first, std::min(step, total - first), output);
  return output;
}

void TwinNode::run_rows(const std::vector<Matrix>& inputs, Index first, Index rows, Matrix& output) const {
  const auto& sources = model_.graph().nodes[at(node_)].inputs;
  std::vector<View<const double>> views;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Index width = model_.width(sources[i]);
    views.emplace_back(inputs[i].data() + first * width, rows, width);
  }
  const Index width = model_.width(node_);
  twin_->run(views, tokens_.subspan(at(first), at(rows)), {output.data() + first * width, rows, width});
}

TwinChain::TwinChain(const Model& model)
    : model_(model), outputs_(at(model.node_count())), readers_(outputs_.size()) {
  for (const Node& node : model.graph().nodes)
    for (const int input : node.inputs) ++readers_[at(input)];
}

void TwinChain::run(int node, const TwinNode& twin) {
  std::vector<Matrix> inputs;
  for (const int source : model_.graph().nodes[at(node)].inputs)
    inputs.push_back(--readers_[at(source)] > 0 ? outputs_[at(source)] : std::move(outputs_[at(source)]));
  outputs_[at(node)] = twin.run(inputs);
}

Matrix reference_logits(const Model& model, std::span<const Token> tokens) {
  TwinChain chain(model);
  for (int node = 0; node < model.node_count(); ++node) chain.run(node, TwinNode(model, node, tokens));
  return chain.logits();
}

}  // namespace plait
