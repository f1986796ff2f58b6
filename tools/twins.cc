#include "tools/twins.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "layers/reference/twin.h"

namespace plait {
namespace {

constexpr Index kGroups = 8;  // groups of rows whose errors are judged apart
constexpr Index kRowSlice =
    64;  // rows of a node of independent rows that its twin takes at a time: bounds memory

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
  const Index step = model_.mixes_rows(node_) ? total : kRowSlice;
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

double group_error(std::span<const double> expected, std::span<const double> found, Index rows) {
  const Index width = static_cast<Index>(expected.size()) / rows;
  const Index step = ceil_div(rows, std::min(rows, kGroups));
  double worst = 0;
  for (Index first = 0; first < rows; first += step) {
    double difference = 0, norm = 0;
    for (Index i = first * width; i < std::min(first + step, rows) * width; ++i) {
      difference += (found[at(i)] - expected[at(i)]) * (found[at(i)] - expected[at(i)]);
      norm += expected[at(i)] * expected[at(i)];
    }
    const double error = difference == 0 ? 0 : std::sqrt(difference / norm);
    worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
  }
  return worst;
}

Index longest_reduction(const Model& model, int node, Index tokens) {
  Index longest = 1;
  for (const Index width : model.layer(node).signature().inputs) longest = std::max(longest, width);
  for (const auto& [name, tensor] : model.parameters(node).all())
    longest = std::max(longest, tensor.shape.back());
  return model.mixes_rows(node) ? std::max(longest, tokens) : longest;
}

double exact_bound(const Model& model, int node, Index tokens) {
  const double eps = std::numeric_limits<float>::epsilon();
  double narrow = 0;
  for (const Field& field : model.layer(node).fields())
    if (bytes_of(field.dtype) < sizeof(float)) narrow = std::max(narrow, 2 * unit_roundoff(field.dtype));
  return narrow + model.kind(node).bound_factor * eps *
                      std::sqrt(static_cast<double>(longest_reduction(model, node, tokens)));
}

}  // namespace plait
