#include "tests/ablate/models.h"

#include "tests/testing.h"

namespace plait::testing {
namespace {

const Json kNorm = {{"kind", "rms_norm"}};
const Json kAttention = {{"kind", "softmax_attention"}, {"num_heads", 2}, {"head_dim", 8}};
const Json kDelta = {
    {"kind", "gated_delta_net"}, {"num_heads", 2}, {"head_dim", 8}, {"value_head_dim", 8}, {"conv", 4}};
const Json kMamba = {{"kind", "mamba2"}, {"num_heads", 2}, {"head_dim", 8}, {"state_dim", 8}};

Json step(const char* name, Json node) {
  node["name"] = name;
  node["norm"] = kNorm;
  return node;
}

Json card_of(const char* name, const std::vector<std::string>& pattern, const Json& blocks) {
  return {{"plait_format", 1},  {"name", name},     {"vocab", 31},         {"width", 32},
          {"pattern", pattern}, {"blocks", blocks}, {"final_norm", kNorm}, {"head", Json::object()}};
}

const Json kMlp = step("mlp", {{"kind", "gated_mlp"}, {"hidden", 48}});

Json parallel_card() {
  const Json mixer = {{"name", "mixer"},
                      {"norm", kNorm},
                      {"branches", {{"attention", kAttention}, {"ssm", kMamba}}},
                      {"scales", {0.5, 0.25}}};
  return card_of("parallel", std::vector<std::string>(6, "both"), {{"both", {mixer, kMlp}}});
}

// Takes the factors out of the adds of mixers and puts a scale node behind each branch.
Json scaled_card() {
  Json card = explicit_graph(expand_card(parallel_card(), "card"));
  Json nodes = Json::array();
  for (Json node : card["graph"]) {
    const bool mixes = node["kind"] == "add" && node["inputs"].size() == 3;
    if (mixes) {
      for (const int port : {1, 2}) {
        const std::string name = node["inputs"][port].get<std::string>() + "_out";
        nodes.push_back({{"name", name},
                         {"kind", "scale"},
                         {"inputs", {node["inputs"][port]}},
                         {"factor", node["scales"][port]}});
        node["inputs"][port] = name;
      }
      node.erase("scales");
    }
    nodes.push_back(node);
  }
  for (Json& group : card["groups"]) {
    for (const char* list : {"nodes", "contributions"}) {
      Json renamed = Json::array();
      for (const Json& node : group[list]) {
        const std::string name = node.get<std::string>();
        const bool branch = name.ends_with(".attention") || name.ends_with(".ssm");
        if (!branch || std::string(list) == "nodes") renamed.push_back(name);
        if (branch) renamed.push_back(name + "_out");
      }
      group[list] = renamed;
    }
  }
  card["graph"] = nodes;
  return card;
}

}  // namespace

std::shared_ptr<const Model> sequential_model() {
  std::vector<std::string> pattern;
  for (int block = 0; block < 12; ++block) pattern.push_back(block % 4 == 3 ? "full" : "linear");
  const Json blocks = {{"full", {step("mixer", kAttention), kMlp}},
                       {"linear", {step("mixer", kDelta), kMlp}}};
  static const auto model = random_model(card_of("sequential", pattern, blocks), 1);
  return model;
}

std::shared_ptr<const Model> parallel_model() {
  static const auto model = random_model(parallel_card(), 2);
  return model;
}

std::shared_ptr<const Model> scaled_model() {
  static const auto model = random_model(scaled_card(), 2);
  return model;
}

}  // namespace plait::testing
