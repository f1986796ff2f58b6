#include "runtime/run/model.h"

#include <numeric>
#include <set>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"

namespace plait {
namespace {

// Adds the node's name to an error that does not know it.
template <class F>
auto naming(const Graph& graph, const Node& node, F&& f) {
  try {
    return f();
  } catch (const Error& error) {
    const std::string message = error.what();
    if (message.find(cat("'", node.name, "'")) != std::string::npos) throw;
    fail(graph.card.name, ": node '", node.name, "' (", node.kind, "): ", message);
  }
}

std::unique_ptr<Config> node_config(const Graph& graph, const std::vector<Index>& widths, int index) {
  const Node& node = graph.nodes[static_cast<std::size_t>(index)];
  Surroundings s;
  s.inputs = static_cast<Index>(node.inputs.size());
  s.width = node.inputs.empty() ? graph.card.width : widths[static_cast<std::size_t>(node.inputs[0])];
  s.vocab = graph.card.vocab;
  s.model_width = graph.card.width;
  s.grids = graph.card.grids;
  s.causal = graph.card.causal;
  return std::make_unique<Config>(node.name, node.settings, s);
}

// Builds layers in graph order; output widths of earlier nodes are the port widths of later ones.
void check_ports(const Graph& graph, const Node& node, const Signature& signature,
                 const std::vector<Index>& widths) {
  if (signature.inputs.size() != node.inputs.size())
    fail("node '", node.name, "' (", node.kind, ") takes ", signature.inputs.size(),
         " inputs, the card gives it ", node.inputs.size());
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const Index width = widths[static_cast<std::size_t>(node.inputs[i])];
    if (width != signature.inputs[i])
      fail("input ", i, " of node '", node.name, "' (", node.kind, ") has width ", signature.inputs[i],
           ", but node '", graph.nodes[static_cast<std::size_t>(node.inputs[i])].name, "' gives width ",
           width);
  }
}

void check_graph(const Kind& kind, const Card& card) {
  if (card.causal && kind.graphs == Kind::Graphs::encoder)
    fail("the kind reads whole sequences, but the graph is causal; \"causal\": false makes it an encoder");
  if (!card.causal && kind.graphs == Kind::Graphs::causal)
    fail("the kind goes along the tokens and has no place in an encoder (\"causal\": false)");
}

std::vector<TensorSpec> own_tensors(const Node& node, std::vector<TensorSpec> specs) {
  if (!node.tied.empty()) std::erase_if(specs, [](const TensorSpec& spec) { return spec.name == "weight"; });
  return specs;
}

// Of a node outside the graph.
std::vector<TensorSpec> kept_tensors(const std::map<std::string, Shape>& shapes) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, shape] : shapes) {
    const bool matrix = shape.size() == 2;
    specs.push_back({name, shape, matrix ? Init::normal : Init::small, "", matrix});
  }
  return specs;
}

}  // namespace

Model::Model(ModelData data, const Registry& registry)
    : data_(std::move(data)), graph_(expand_card(data_.card, data_.origin)) {
  std::set<std::string> owners;
  for (int i = 0; i < static_cast<int>(graph_.nodes.size()); ++i) {
    const Node& node = graph_.nodes[static_cast<std::size_t>(i)];
    naming(graph_, node, [&] {
      const Kind& kind = registry.find(node.kind);
      kinds_.push_back(&kind);
      check_graph(kind, graph_.card);
      const auto specs = kind.tensors(*node_config(graph_, widths_, i));
      const auto& stored = data_.tensors[node.name];
      Parameters::check(cat(data_.origin, ": ", node.name), own_tensors(node, specs), stored);
      owners.insert(node.name);
      auto tensors = stored;
      if (!node.tied.empty()) {
        const auto& other = parameters_[static_cast<std::size_t>(graph_.find(node.tied))];
        if (!other.has("weight"))
          fail("node '", node.name, "' is tied to '", node.tied, "', which has no 'weight'");
        tensors["weight"] = other.tensor("weight");
        Parameters::check(cat(data_.origin, ": ", node.name), specs, tensors);
      }
      parameters_.emplace_back(std::move(tensors));
      layers_.push_back(kind.make(*node_config(graph_, widths_, i), parameters_.back()));
      check_ports(graph_, node, layers_.back()->signature(), widths_);
      widths_.push_back(layers_.back()->signature().output);
    });
    for (const Field& field : layers_.back()->fields())
      if (field.grid > 0) boundary_ = std::lcm(boundary_, field.grid);
  }
  if (graph_.card.causal && widths_.back() != graph_.card.vocab)
    fail(data_.origin, ": the last node '", graph_.nodes.back().name, "' gives width ", widths_.back(),
         ", the card's vocab is ", graph_.card.vocab);
  for (const auto& [node, shapes] : graph_.aside) {
    Parameters::check(cat(data_.origin, ": ", node), kept_tensors(shapes), data_.tensors[node]);
    owners.insert(node);
  }
  for (const auto& [node, tensors] : data_.tensors)
    if (!owners.contains(node) && !tensors.empty())
      fail(data_.origin, ": tensor '", node, ".", tensors.begin()->first, "' belongs to no node of the card");
}

std::unique_ptr<Config> Model::config(int node) const { return node_config(graph_, widths_, node); }

std::string Model::identity() const { return sha256(cat(digest(), "\n", card().json.dump())); }

Index Model::parameter_count(int node) const {
  const Node& n = graph_.nodes[static_cast<std::size_t>(node)];
  Index count = 0;
  for (const auto& [name, tensor] : parameters(node).all())
    if (n.tied.empty() || name != "weight") count += element_count(tensor.shape);
  return count;
}

Index Model::parameter_count() const {
  Index count = 0;
  for (int i = 0; i < node_count(); ++i) count += parameter_count(i);
  return count;
}

std::map<std::string, std::vector<TensorSpec>> Model::wanted(const Graph& graph, const Registry& registry) {
  std::map<std::string, std::vector<TensorSpec>> all;
  std::vector<Index> widths;
  for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i) {
    const Node& node = graph.nodes[static_cast<std::size_t>(i)];
    naming(graph, node, [&] {
      const Kind& kind = registry.find(node.kind);
      check_graph(kind, graph.card);
      const auto config = node_config(graph, widths, i);
      const Index width = config->width();
      all[node.name] = own_tensors(node, kind.tensors(*config));
      widths.push_back(kind.output == Kind::Output::vocab ? graph.card.vocab : width);
    });
  }
  for (const auto& [node, shapes] : graph.aside) all[node] = kept_tensors(shapes);
  return all;
}

Json arithmetic(const Card& card, const Compute& compute) {
  Json identity = {{"mode", name_of(compute.numerics)},
                   {"chunk", card.grids.chunk},
                   {"key_block", card.grids.key_block},
                   {"key_span", card.grids.key_span},
                   {"version", kArithmeticVersion}};
  if (compute.numerics == Numerics::fast) identity["isa"] = name_of(resolve_isa(compute.isa));
  return identity;
}

std::string arithmetic_digest(const Card& card, const Compute& compute) {
  return sha256(arithmetic(card, compute).dump());
}

}  // namespace plait
