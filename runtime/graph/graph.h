// A model's card and the list of nodes it stands for. Purely structural: no layer kind is known here.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/base/numerics.h"
#include "runtime/base/view.h"
#include "runtime/graph/config.h"

namespace plait {

inline constexpr int kFormat = 1;  // `plait_format` this program reads and writes

// The JSON card of a model file: {"plait_format", "name", "family", "vocab", "width", "causal", "numerics",
// "embed", "pattern", "blocks", "final_norm", "head"} or an explicit "graph" instead of embed..head, and
// "aside" (Graph::aside). Unknown keys are errors.
struct Card {
  Json json;  // as stored
  std::string name, family;
  Index vocab = 0, width = 0;
  // False: an encoder, whose rows may depend on the whole sequence (runtime/run/encoder.h).
  bool causal = true;
  Grids grids;
};

struct Node {
  std::string name;         // "blocks.3.mixer.attention"
  std::string kind;         // registry key
  Json settings;            // the kind's own keys
  std::vector<int> inputs;  // nodes, ascending order of ports
  std::string tied;         // node whose `weight` this one uses; empty = its own
};

// A dotted name that stands for several nodes: a residual step ("blocks.3.mixer") or a whole block
// ("blocks.3").
struct Group {
  std::string name;
  std::vector<int> nodes;          // members, the add included
  int residual = -1;               // node whose output enters
  int output = -1;                 // node whose output leaves; skip makes it equal to the residual
  std::vector<int> contributions;  // nodes added to the residual stream: what zero and scale act on
};

struct Graph {
  Card card;
  std::vector<Node> nodes;  // in the order they run; inputs precede
  std::vector<Group> groups;
  // Tensors the file keeps for another use (a head that drafts tokens), by the name of a node that is not in
  // the graph: the card's {"aside": {USE: {NODE: {TENSOR: shape}}}}, where NODE begins with "USE.". Two sizes
  // make a product's weight.
  std::map<std::string, std::map<std::string, Shape>> aside;

  int output() const { return static_cast<int>(nodes.size()) - 1; }
  int find(const std::string& name) const;            // -1 if none
  const Group* group(const std::string& name) const;  // null if none
};

// Throws Error naming the key or node. `origin` names the file in messages.
Graph expand_card(const Json& card, const std::string& origin);
// The explicit form ("graph" list) of what a card stands for: `plait inspect --graph`.
Json explicit_graph(const Graph& graph);

}  // namespace plait
