#include "runtime/graph/graph.h"

#include <algorithm>
#include <set>

#include "runtime/base/error.h"

namespace plait {

int Graph::find(const std::string& name) const {
  const auto found = std::find_if(nodes.begin(), nodes.end(), [&](const Node& n) { return n.name == name; });
  return found == nodes.end() ? -1 : static_cast<int>(found - nodes.begin());
}

const Group* Graph::group(const std::string& name) const {
  const auto found =
      std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.name == name; });
  return found == groups.end() ? nullptr : &*found;
}

namespace {

constexpr std::size_t kMaxNodes = 100000;

// Reads an object of the card key by key; what nobody took is an error.
class Reader {
 public:
  Reader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail(where_, " must be an object, found ", object.dump().substr(0, 80));
  }
  bool has(const std::string& key) const { return object_.contains(key); }
  const Json& get(const std::string& key) {
    taken_.insert(key);
    const auto found = object_.find(key);
    if (found == object_.end()) fail(where_, " lacks the key '", key, "'");
    return *found;
  }
  std::string text(const std::string& key) {
    const Json& value = get(key);
    if (!value.is_string() || value.get_ref<const std::string&>().empty())
      fail(where_, ": '", key, "' must be a non-empty string, found ", value.dump().substr(0, 80));
    return value.get<std::string>();
  }
  std::string text_or(const std::string& key, const std::string& fallback) {
    return has(key) ? text(key) : fallback;
  }
  Index size(const std::string& key, Index high) {
    const Json& value = get(key);
    if (!value.is_number_integer() || value.get<std::int64_t>() < 1 || value.get<std::int64_t>() > high)
      fail(where_, ": '", key, "' must be an integer from 1 to ", high, ", found ",
           value.dump().substr(0, 80));
    return value.get<Index>();
  }
  bool boolean(const std::string& key) {
    const Json& value = get(key);
    if (!value.is_boolean())
      fail(where_, ": '", key, "' must be true or false, found ", value.dump().substr(0, 80));
    return value.get<bool>();
  }
  const Json& list(const std::string& key) {
    const Json& value = get(key);
    if (!value.is_array()) fail(where_, ": '", key, "' must be a list, found ", value.dump().substr(0, 80));
    return value;
  }
  // All keys not taken so far, as one object: a node's own settings.
  Json rest() {
    Json settings = Json::object();
    for (const auto& [key, value] : object_.items())
      if (!taken_.contains(key)) settings[key] = value, taken_.insert(key);
    return settings;
  }
  void finish() const {
    for (const auto& [key, value] : object_.items())
      if (!taken_.contains(key)) fail(where_, " has an unknown key '", key, "'");
  }
  const std::string& where() const { return where_; }

 private:
  const Json& object_;
  std::string where_;
  std::set<std::string> taken_;
};

void check_name(const std::string& name, const std::string& where) {
  const bool good = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.' || c == '-';
  });
  if (!good || name.empty() || name.front() == '.' || name.back() == '.' ||
      name.find("..") != std::string::npos)
    fail(where, ": '", name.substr(0, 80),
         "' is not a node name (letters, digits, '_', '-', single dots inside)");
}

// Builds the graph of one card.
class Expansion {
 public:
  Expansion(Graph& graph, std::string origin) : graph_(graph), origin_(std::move(origin)) {}

  void pattern(Reader& card) {
    const Json embed = card.has("embed") ? card.get("embed") : Json::object();
    int x = node("embed", with_kind(embed, "embedding"), {}, cat(origin_, ": embed"));
    const Json& blocks = card.get("blocks");
    if (!blocks.is_object()) fail(origin_, ": 'blocks' must be an object of block templates");
    std::set<std::string> used;
    Index number = 0;
    for (const Json& name : card.list("pattern")) {
      if (!name.is_string() || !blocks.contains(name.get<std::string>()))
        fail(origin_, ": pattern entry ", name.dump().substr(0, 80), " names no template of 'blocks'");
      used.insert(name.get<std::string>());
      x = block(cat("blocks.", number++), blocks[name.get<std::string>()], x);
    }
    for (const auto& [name, block] : blocks.items())
      if (!used.contains(name)) fail(origin_, ": block template '", name, "' is not used by 'pattern'");
    if (card.has("final_norm"))
      x = node("final_norm", card.get("final_norm"), {x}, cat(origin_, ": final_norm"));
    node("head", with_kind(card.get("head"), "head"), {x}, cat(origin_, ": head"));
  }

  void list(const Json& nodes) {
    for (const Json& entry : nodes) {
      Reader reader(entry, cat(origin_, ": graph entry ", graph_.nodes.size()));
      const std::string name = reader.text("name");
      std::vector<int> inputs;
      if (reader.has("inputs"))
        for (const Json& input : reader.list("inputs")) inputs.push_back(known(input, reader.where()));
      node(name, reader.rest(), inputs, reader.where());
    }
    if (graph_.nodes.empty()) fail(origin_, ": 'graph' has no nodes");
  }

  void groups(const Json& groups) {
    for (const Json& entry : groups) {
      Reader reader(entry, cat(origin_, ": group entry ", graph_.groups.size()));
      Group group;
      group.name = reader.text("name");
      check_name(group.name, reader.where());
      for (const Json& n : reader.list("nodes")) group.nodes.push_back(known(n, reader.where()));
      for (const Json& n : reader.list("contributions"))
        group.contributions.push_back(known(n, reader.where()));
      group.residual = known(reader.get("residual"), reader.where());
      group.output = known(reader.get("output"), reader.where());
      reader.finish();
      check_group(group, reader.where());
      graph_.groups.push_back(group);
    }
  }

 private:
  static Json with_kind(Json settings, const char* kind) {
    if (settings.is_object() && !settings.contains("kind")) settings["kind"] = kind;
    return settings;
  }

  // A skipped group's output takes the residual's value, so the residual must be a direct input of the
  // output.
  void check_group(const Group& group, const std::string& where) const {
    const auto& inputs = graph_.nodes[static_cast<std::size_t>(group.output)].inputs;
    if (graph_.nodes[static_cast<std::size_t>(group.output)].kind != "add" || inputs.empty())
      fail(where, ": the output of group '", group.name, "' must be an 'add' node");
  }

  int known(const Json& name, const std::string& where) const {
    const int found = name.is_string() ? graph_.find(name.get<std::string>()) : -1;
    if (found < 0) fail(where, " names ", name.dump().substr(0, 80), ", which is no earlier node");
    return found;
  }

  int node(const std::string& name, const Json& object, std::vector<int> inputs, const std::string& where) {
    check_name(name, where);
    if (graph_.find(name) >= 0) fail(where, ": node '", name, "' exists twice");
    if (graph_.nodes.size() >= kMaxNodes) fail(origin_, ": the card has more than ", kMaxNodes, " nodes");
    Reader reader(object, where);
    Node node;
    node.name = name;
    node.kind = reader.text("kind");
    node.inputs = std::move(inputs);
    if (reader.has("tied")) {
      node.tied = reader.text("tied");
      if (graph_.find(node.tied) < 0)
        fail(where, ": 'tied' names '", node.tied, "', which is no earlier node");
    }
    node.settings = reader.rest();
    graph_.nodes.push_back(std::move(node));
    return static_cast<int>(graph_.nodes.size()) - 1;
  }

  int block(const std::string& name, const Json& steps, int x) {
    if (!steps.is_array() || steps.empty()) fail(origin_, ": template of ", name, " must be a list of steps");
    const int first = static_cast<int>(graph_.nodes.size());
    Group group{name, {}, x, -1, {}};
    for (const Json& entry : steps) x = step(name, entry, x, group);
    for (int n = first; n <= x; ++n) group.nodes.push_back(n);
    group.output = x;
    graph_.groups.push_back(group);
    return x;
  }

  // x + mixer(norm(x)), with one mixer or several parallel branches.
  int step(const std::string& block, const Json& entry, int x, Group& outer) {
    Reader reader(entry, cat(origin_, ": a step of ", block));
    const std::string name = cat(block, ".", reader.text("name"));
    const int first = static_cast<int>(graph_.nodes.size());
    Group group{name, {}, x, -1, {}};
    int h = x;
    if (reader.has("norm"))
      h = node(name + "_norm", reader.get("norm"), {x}, cat(origin_, ": norm of ", name));
    Json scales = reader.has("scales") ? reader.get("scales") : Json();
    const Json post = reader.has("post_norm") ? reader.get("post_norm") : Json();
    if (reader.has("branches")) {
      const Json& branches = reader.get("branches");
      if (!branches.is_object() || branches.empty())
        fail(reader.where(), ": 'branches' of ", name, " must be an object of nodes");
      for (const auto& [branch, settings] : branches.items())
        group.contributions.push_back(
            node(cat(name, ".", branch), settings, {h}, cat(origin_, ": ", name, ".", branch)));
      reader.finish();
    } else {
      group.contributions.push_back(node(name, reader.rest(), {h}, cat(origin_, ": ", name)));
    }
    if (!post.is_null()) {
      if (group.contributions.size() != 1) fail(reader.where(), ": 'post_norm' goes with a single mixer");
      group.contributions = {
          node(name + "_post_norm", post, group.contributions, cat(origin_, ": post_norm of ", name))};
    }
    std::vector<int> inputs = {x};
    inputs.insert(inputs.end(), group.contributions.begin(), group.contributions.end());
    Json add = {{"kind", "add"}};
    if (!scales.is_null()) {
      if (!scales.is_array() || scales.size() != group.contributions.size())
        fail(reader.where(), ": 'scales' of ", name, " must list one number per branch");
      add["scales"] = Json::array({1.0});
      for (const Json& s : scales) add["scales"].push_back(s);
    }
    const int output = node(name + "_add", add, inputs, reader.where());
    for (int n = first; n <= output; ++n) group.nodes.push_back(n);
    group.output = output;
    outer.contributions.insert(outer.contributions.end(), group.contributions.begin(),
                               group.contributions.end());
    graph_.groups.push_back(std::move(group));
    return output;
  }

  Graph& graph_;
  std::string origin_;
};

Shape read_shape(const Json& list, const std::string& where) {
  Shape shape;
  if (list.is_array())
    for (const Json& size : list)
      if (size.is_number_integer() && size.get<std::int64_t>() > 0) shape.push_back(size.get<Index>());
  if (shape.empty() || shape.size() != list.size() || shape.size() > 8)
    fail(where, " must be a list of 1 to 8 positive sizes, found ", list.dump().substr(0, 80));
  return shape;
}

void read_aside(const Json& uses, const std::string& where, Graph& graph) {
  if (!uses.is_object()) fail(where, " must be an object, found ", uses.dump().substr(0, 80));
  for (const auto& [use, nodes] : uses.items()) {
    if (!nodes.is_object()) fail(where, ": '", use.substr(0, 80), "' must be an object of nodes");
    for (const auto& [node, tensors] : nodes.items()) {
      check_name(node, where);
      if (!node.starts_with(use + ".") || graph.find(node) >= 0)
        fail(where, ": '", node.substr(0, 80), "' must begin with '", use.substr(0, 80),
             ".' and be no node of the graph");
      if (!tensors.is_object()) fail(where, ": '", node, "' must be an object of tensors");
      for (const auto& [tensor, shape] : tensors.items())
        graph.aside[node][tensor] =
            read_shape(shape, cat(where, ": '", node, ".", tensor.substr(0, 80), "'"));
    }
  }
}

Grids read_grids(const Json& numerics, const std::string& where) {
  Grids grids;
  Reader reader(numerics, where);
  constexpr Index kHigh = 1 << 20;
  if (reader.has("chunk")) grids.chunk = reader.size("chunk", 1024);
  if (reader.has("key_block")) grids.key_block = reader.size("key_block", kHigh);
  if (reader.has("key_span")) grids.key_span = reader.size("key_span", kHigh);
  reader.finish();
  if (grids.key_block % 64 != 0)
    fail(where, ": 'key_block' must be a multiple of 64, found ", grids.key_block);
  if (grids.key_span % grids.key_block != 0)
    fail(where, ": 'key_span' (", grids.key_span, ") must be a multiple of 'key_block' (", grids.key_block,
         ")");
  return grids;
}

}  // namespace

Graph expand_card(const Json& json, const std::string& origin) {
  Graph graph;
  Reader card(json, cat(origin, ": the card"));
  const Json& format = card.get("plait_format");
  if (!format.is_number_integer() || format.get<std::int64_t>() != kFormat)
    fail(origin, ": the card has plait_format ", format.dump(), ", this program reads format ", kFormat);
  graph.card.json = json;
  graph.card.name = card.text("name");
  graph.card.family = card.text_or("family", "plait");
  graph.card.vocab = card.size("vocab", Index{1} << 31);
  graph.card.width = card.size("width", Index{1} << 24);
  if (card.has("causal")) graph.card.causal = card.boolean("causal");
  if (card.has("numerics")) graph.card.grids = read_grids(card.get("numerics"), cat(origin, ": numerics"));
  if (card.has("notes")) card.get("notes");
  Expansion expansion(graph, origin);
  if (card.has("graph"))
    expansion.list(card.list("graph"));
  else
    expansion.pattern(card);
  if (card.has("groups")) expansion.groups(card.list("groups"));
  if (card.has("aside")) read_aside(card.get("aside"), cat(origin, ": aside"), graph);
  card.finish();
  return graph;
}

Json explicit_graph(const Graph& graph) {
  const auto name = [&](int n) { return graph.nodes[static_cast<std::size_t>(n)].name; };
  const auto names = [&](const std::vector<int>& nodes) {
    Json list = Json::array();
    for (int n : nodes) list.push_back(name(n));
    return list;
  };
  Json nodes = Json::array(), groups = Json::array();
  for (const Node& node : graph.nodes) {
    Json entry = {{"name", node.name}, {"kind", node.kind}};
    if (!node.inputs.empty()) entry["inputs"] = names(node.inputs);
    if (!node.tied.empty()) entry["tied"] = node.tied;
    entry.update(node.settings);
    nodes.push_back(std::move(entry));
  }
  for (const Group& group : graph.groups)
    groups.push_back({{"name", group.name},
                      {"nodes", names(group.nodes)},
                      {"residual", name(group.residual)},
                      {"output", name(group.output)},
                      {"contributions", names(group.contributions)}});
  Json card = graph.card.json;
  for (const char* key : {"embed", "pattern", "blocks", "final_norm", "head", "groups", "graph"})
    card.erase(key);
  card["graph"] = std::move(nodes);
  card["groups"] = std::move(groups);
  return card;
}

}  // namespace plait
