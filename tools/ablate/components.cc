#include "tools/ablate/components.h"

#include <algorithm>
#include <set>

#include "runtime/base/error.h"
#include "tools/describe.h"

namespace plait::ablate {
namespace {

// The number of "blocks.N"; -1 for another name.
int block_number(const std::string& name) {
  const std::string prefix = "blocks.";
  if (!name.starts_with(prefix) || name.size() == prefix.size() || name.size() > prefix.size() + 6) return -1;
  const std::string number = name.substr(prefix.size());
  if (number.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoi(number);
}

bool contains(const std::vector<int>& nodes, int node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

const Node& node_of(const Model& model, int node) {
  return model.graph().nodes[static_cast<std::size_t>(node)];
}

// What a contribution is made by: the node behind the norms and factors that follow it, and all of them.
std::vector<int> chain_of(const Model& model, const Group& step, int contribution) {
  std::vector<int> chain = {contribution};
  for (;;) {
    const int node = chain.back();
    const bool passes = model.kind(node).group == "norm" || model.kind(node).key == "scale";
    const auto& inputs = node_of(model, node).inputs;
    if (!passes || inputs.size() != 1 || inputs[0] == step.residual || !contains(step.nodes, inputs[0]))
      return chain;
    chain.push_back(inputs[0]);
  }
}

void count(const Model& model, int node, Component& component) {
  const Layer& layer = model.layer(node);
  component.parameters += model.parameter_count(node);
  component.state_bytes += static_cast<Index>(birth_bytes(layer.fields()) + window_bytes(layer.fields()));
  component.kv_bytes += static_cast<Index>(log_bytes_per_token(layer.fields()));
}

Component component(const Model& model, const std::string& name, int block, const std::vector<int>& nodes) {
  Component all;
  all.name = name;
  all.block = block;
  for (const int node : nodes) count(model, node, all);
  return all;
}

void add_kind(Component& component, const std::string& kind) {
  auto& kinds = component.kinds;
  const auto at = std::lower_bound(kinds.begin(), kinds.end(), kind);
  if (at == kinds.end() || *at != kind) kinds.insert(at, kind);
}

// The factor the step's add puts on a contribution.
double multiplier(const Model& model, const Group& step, int contribution) {
  const Node& add = node_of(model, step.output);
  const auto scales = add.settings.find("scales");
  const auto port = std::find(add.inputs.begin(), add.inputs.end(), contribution);
  if (scales == add.settings.end() || port == add.inputs.end()) return 1;
  return scales->at(static_cast<std::size_t>(port - add.inputs.begin())).get<double>();
}

// Adds what one residual step is to the components of its block.
void add_step(const Model& model, const Group& step, int block, Components& all) {
  Component whole = component(model, step.name, block, step.nodes);
  std::vector<Component> branches;
  bool mixes = false;
  for (const int contribution : step.contributions) {
    const std::vector<int> chain = chain_of(model, step, contribution);
    const Kind& kind = model.kind(chain.back());
    mixes = mixes || kind.group != "mlp";
    const bool single = step.contributions.size() == 1;
    Component branch = single ? whole : component(model, node_of(model, contribution).name, block, chain);
    branch.kinds = {kind.key};
    branch.multiplier = multiplier(model, step, contribution);
    add_kind(whole, kind.key);
    branches.push_back(std::move(branch));
  }
  if (branches.size() == 1) whole.multiplier = branches[0].multiplier;
  if (!mixes) return all.mlps.push_back(std::move(whole));
  for (const std::string& kind : whole.kinds) add_kind(all.layers.back(), kind);
  all.mixers.push_back(std::move(whole));
  all.branches.insert(all.branches.end(), branches.begin(), branches.end());
}

}  // namespace

Components components_of(const Model& model) {
  Components all;
  const auto& groups = model.graph().groups;
  for (const Group* block; (block = model.graph().group(cat("blocks.", all.blocks))); ++all.blocks) {
    all.layers.push_back(component(model, block->name, all.blocks, block->nodes));
    const std::string prefix = block->name + ".";
    for (const Group& step : groups)
      if (step.name.starts_with(prefix)) add_step(model, step, all.blocks, all);
  }
  if (all.blocks == 0)
    fail("model '", model.data().origin, "' has no group 'blocks.0'; a study ablates blocks");
  return all;
}

Component node_component(const Model& model, int node) {
  int block = -1;
  for (const Group& group : model.graph().groups)
    if (block_number(group.name) >= 0 && contains(group.nodes, node)) block = block_number(group.name);
  Component all = component(model, node_of(model, node).name, block, {node});
  all.kinds = {model.kind(node).key};
  return all;
}

}  // namespace plait::ablate
