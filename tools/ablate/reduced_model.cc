#include "tools/ablate/reduced_model.h"

#include <algorithm>
#include <map>
#include <set>

#include "runtime/base/error.h"
#include "runtime/base/panel.h"

namespace plait::ablate {
namespace {

std::size_t at(int node) { return static_cast<std::size_t>(node); }

// Of two groups of the same nodes the later one is the block, the earlier one its only step.
bool contains(const Graph& graph, std::size_t outer, std::size_t inner) {
  const auto& all = graph.groups[outer].nodes;
  const auto& some = graph.groups[inner].nodes;
  if (outer == inner || some.size() > all.size()) return false;
  if (some.size() == all.size() && outer < inner) return false;
  return std::all_of(some.begin(), some.end(),
                     [&](int n) { return std::find(all.begin(), all.end(), n) != all.end(); });
}

// The kinds a model was built with, whatever registry they came from.
Registry registry_of(const Model& model) {
  Registry registry;
  std::set<std::string> known;
  for (int n = 0; n < model.node_count(); ++n)
    if (known.insert(model.kind(n).key).second) registry.add(model.kind(n));
  return registry;
}

// A model's card in explicit form and its tensors, and what is taken from them.
class Parts {
 public:
  explicit Parts(const Model& model)
      : model_(model), card_(explicit_graph(model.graph())), tensors_(model.data().tensors) {}

  void remove(const std::vector<std::string>& groups) {
    std::set<std::string> gone;
    std::map<std::string, std::string> instead;  // of a removed output: the stream that entered its block
    for (const std::string& name : groups) {
      const Group& group = *model_.graph().group(name);
      for (const int n : group.nodes) gone.insert(name_of(n));
      const std::string entered = name_of(group.residual);
      instead[name_of(group.output)] = instead.contains(entered) ? instead[entered] : entered;
    }
    std::erase_if(card_["graph"].get_ref<Json::array_t&>(),
                  [&](const Json& node) { return gone.contains(node["name"]); });
    for (Json& node : card_["graph"]) rewire(node, gone, instead);
    std::erase_if(card_["groups"].get_ref<Json::array_t&>(),
                  [&](const Json& group) { return gone.contains(group["output"]); });
    for (Json& group : card_["groups"])
      if (const auto found = instead.find(group["residual"]); found != instead.end())
        group["residual"] = found->second;
    for (const std::string& node : gone) tensors_.erase(node);
  }

  void cut_vocabulary(Index vocab) {
    if (model_.card().vocab <= vocab) return;
    card_["vocab"] = vocab;
    const auto wanted = Model::wanted(expand_card(card_, model_.data().origin), registry_of(model_));
    for (const auto& [node, specs] : wanted)
      for (const TensorSpec& spec : specs) {
        Tensor& tensor = tensors_.at(node).at(spec.name);
        if (tensor.shape != spec.shape) tensor = first_rows(tensor, vocab);
      }
  }

  std::shared_ptr<const Model> build() const {
    ModelData data;
    data.origin = cat("a part of ", model_.data().origin);
    data.card = card_;
    data.tensors = tensors_;
    data.digest = model_.digest();
    const auto built = std::make_shared<Built>(std::move(data), registry_of(model_));
    return {built, &built->model};
  }

 private:
  // A model refers to the kinds of its registry.
  struct Built {
    Built(ModelData data, Registry kinds) : registry(std::move(kinds)), model(std::move(data), registry) {}
    Registry registry;
    Model model;
  };

  const std::string& name_of(int node) const { return model_.graph().nodes[at(node)].name; }

  void rewire(Json& node, const std::set<std::string>& gone,
              const std::map<std::string, std::string>& instead) {
    if (node.contains("inputs"))
      for (Json& input : node["inputs"]) {
        if (!gone.contains(input)) continue;
        const auto found = instead.find(input);
        if (found == instead.end())
          fail("node '", node["name"].get<std::string>(), "' reads '", input.get<std::string>(),
               "', which is inside a block that is to be removed");
        input = found->second;
      }
    if (node.contains("tied") && gone.contains(node["tied"])) {
      const int owner = model_.graph().find(node["tied"]);
      tensors_[node["name"]]["weight"] = model_.parameters(owner).tensor("weight");
      node.erase("tied");
    }
  }

  // Rows of both layouts lie in ascending order, panels in whole groups of 32.
  static Tensor first_rows(Tensor tensor, Index rows) {
    const Index width = element_count(tensor.shape) / tensor.shape[0];
    const Index elements =
        tensor.layout == Layout::panels ? packed_elements(tensor.dtype, rows, width) : rows * width;
    tensor.shape[0] = rows;
    tensor.bytes = static_cast<std::size_t>(elements) * bytes_of(tensor.dtype);
    return tensor;
  }

  const Model& model_;
  Json card_;
  std::map<std::string, std::map<std::string, Tensor>> tensors_;
};

// What makes two blocks of one sort.
std::string sort_of(const Graph& graph, const Group& group) {
  std::string sort;
  for (const int n : group.nodes)
    sort += cat(graph.nodes[at(n)].kind, graph.nodes[at(n)].settings.dump(), "\n");
  return sort;
}

}  // namespace

std::vector<std::string> blocks_of(const Graph& graph) {
  std::vector<std::string> blocks;
  for (std::size_t g = 0; g < graph.groups.size(); ++g) {
    bool outermost = true;
    for (std::size_t other = 0; other < graph.groups.size(); ++other)
      outermost = outermost && !contains(graph, other, g);
    if (outermost) blocks.push_back(graph.groups[g].name);
  }
  return blocks;
}

std::shared_ptr<const Model> without_blocks(const Model& model, std::span<const std::string> blocks) {
  Parts parts(model);
  parts.remove({blocks.begin(), blocks.end()});
  return parts.build();
}

std::shared_ptr<const Model> excerpt(const Model& model, Index vocab) {
  std::set<std::string> sorts;
  std::vector<std::string> repeated;
  for (const std::string& block : blocks_of(model.graph()))
    if (!sorts.insert(sort_of(model.graph(), *model.graph().group(block))).second) repeated.push_back(block);
  Parts parts(model);
  parts.remove(repeated);
  parts.cut_vocabulary(vocab);
  return parts.build();
}

}  // namespace plait::ablate
