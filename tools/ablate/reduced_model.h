// Models physically built from a part of another one's card and tensors: what layer.skip is held against, and
// small models of the same layers as a large one. Tensors stay where they are; models share them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/model.h"

namespace plait::ablate {

// Names of the graph's outermost groups: its blocks.
std::vector<std::string> blocks_of(const Graph& graph);

// The model without these groups: what read a group's output reads its residual input instead. Nodes keep
// their names, and their settings with whatever constants they have by depth. Throws Error naming a node
// outside that reads inside a group.
std::shared_ptr<const Model> without_blocks(const Model& model, std::span<const std::string> blocks);

// The first block of every sort (kinds and settings of its nodes, in order) and, of a larger vocabulary, the
// first `vocab` tokens (a multiple of 32). The model's own weights.
std::shared_ptr<const Model> excerpt(const Model& model, Index vocab);

}  // namespace plait::ablate
