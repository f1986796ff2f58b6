// What a study counts of a model: its blocks, and in each the mixers, their parallel branches and the MLPs.
#pragma once

#include <string>
#include <vector>

#include "runtime/run/model.h"

namespace plait::ablate {

// A part of a model that adds to the residual stream, or a node with an inner site.
//
// In a card a block ("blocks.3") is a chain of residual steps ("blocks.3.mixer", "blocks.3.mlp"). A step with
// parallel branches is one mixer and several branches; a step with one mixer is that mixer's only branch. A
// branch's residual contribution is the tensor the step's add reads, that is after norms and `scale` nodes
// that follow the mixer; the add's own factor for it is `multiplier`. Edits act before that factor, which is
// the same as behind it for every operator that is linear or relative to the tensor's size, and all are.
struct Component {
  std::string name;                // what an edit names: "blocks.3", "blocks.3.mixer", "blocks.3.mixer.ssm"
  int block = -1;                  // -1 outside the blocks
  std::vector<std::string> kinds;  // registry keys of its mixers (MLP: of the MLP), sorted, each once
  double multiplier = 1;           // on its contribution, in the residual add
  Index parameters = 0;            // owned by its nodes, norms that serve it alone included
  Index state_bytes = 0;           // per stream: fixed state, and windowed logs when full
  Index kv_bytes = 0;              // unlimited logs, per token
};

struct Components {
  int blocks = 0;
  std::vector<Component> layers;    // one per block
  std::vector<Component> mixers;    // residual steps around a sequence mixer
  std::vector<Component> branches;  // of the mixers, in the order they are added
  std::vector<Component> mlps;
  bool parallel() const { return branches.size() > mixers.size(); }
};

// All lists are in the order of the blocks. Throws Error if the model has no groups named blocks.0, blocks.1,
// ...
Components components_of(const Model& model);

// The part a node is: its block (-1 if none), its own kind and sizes.
Component node_component(const Model& model, int node);

}  // namespace plait::ablate
