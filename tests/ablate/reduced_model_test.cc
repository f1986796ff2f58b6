#include "tools/ablate/reduced_model.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "tests/testing.h"

namespace plait::ablate {
namespace {

using testing::all_logits;
using testing::Numbers;
using testing::same_bits;

Json card() {
  return Json::parse(R"({
    "plait_format": 1, "name": "small", "vocab": 97, "width": 32,
    "pattern": ["b", "a", "a", "b", "a"],
    "blocks": {
      "a": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "delta_net", "num_heads": 2, "head_dim": 16}],
      "b": [{"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 40}]
    },
    "final_norm": {"kind": "rms_norm"}, "head": {"tied": "embed"}})");
}

std::vector<std::string> names_of(const Model& model) {
  std::vector<std::string> names;
  for (const Node& node : model.graph().nodes) names.push_back(node.name);
  return names;
}

std::vector<float> logits_of(std::shared_ptr<const Model> model, const std::vector<Token>& tokens) {
  Stream stream(std::move(model));
  return all_logits(stream, tokens, {static_cast<Index>(tokens.size())});
}

TEST(ReducedModel, BlocksAreTheOutermostGroups) {
  EXPECT_EQ(blocks_of(expand_card(card(), "test")),
            (std::vector<std::string>{"blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"}));
}

TEST(ReducedModel, IsTheModelOfTheShorterCard) {
  const auto model = testing::random_model(card(), 3);
  const std::vector<std::string> gone = {"blocks.1", "blocks.2", "blocks.4"};
  const auto reduced = without_blocks(*model, gone);
  ModelData data = testing::random_data(card(), 3);
  data.card["pattern"] = {"b", "b"};
  data.card["blocks"].erase("a");
  std::map<std::string, std::map<std::string, Tensor>> tensors;
  for (const char* node : {"embed", "final_norm", "blocks.0.mlp", "blocks.0.mlp_norm"})
    tensors[node] = data.tensors[node];
  for (const char* node : {"mlp", "mlp_norm"})  // block 3 is the shorter card's block 1
    tensors[std::string("blocks.1.") + node] = data.tensors[std::string("blocks.3.") + node];
  data.tensors = tensors;
  const auto expected = std::make_shared<const Model>(std::move(data));
  const std::vector<Token> tokens = Numbers(5).tokens(40, 97);
  EXPECT_TRUE(same_bits(logits_of(reduced, tokens), logits_of(expected, tokens)));
}

TEST(ReducedModel, KeepsWhatOthersAreTiedTo) {
  Json json = explicit_graph(expand_card(card(), "test"));
  for (Json& node : json["graph"])
    if (node["name"] == "final_norm") node["tied"] = "blocks.1.mixer_norm";
  const auto model = testing::random_model(json, 3);
  const std::vector<std::string> gone = {"blocks.1"};
  const auto reduced = without_blocks(*model, gone);
  EXPECT_EQ(to_double(reduced->parameters(reduced->graph().find("final_norm")).tensor("weight")),
            to_double(model->parameters(model->graph().find("blocks.1.mixer_norm")).tensor("weight")));
}

TEST(ReducedModel, RefusesABlockOthersReadInto) {
  Json json = explicit_graph(expand_card(card(), "test"));
  for (Json& node : json["graph"])
    if (node["name"] == "blocks.3.mlp_norm") node["inputs"] = {"blocks.1.mixer"};
  const auto model = testing::random_model(json, 3);
  const std::vector<std::string> gone = {"blocks.1"};
  try {
    without_blocks(*model, gone);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'blocks.3.mlp_norm' reads 'blocks.1.mixer'"), std::string::npos)
        << error.what();
  }
}

TEST(ReducedModel, AnExcerptHasOneBlockOfEverySort) {
  const auto model = testing::random_model(card(), 3);
  const auto part = excerpt(*model, 128);
  EXPECT_EQ(names_of(*part),
            (std::vector<std::string>{"embed", "blocks.0.mlp_norm", "blocks.0.mlp", "blocks.0.mlp_add",
                                      "blocks.1.mixer_norm", "blocks.1.mixer", "blocks.1.mixer_add",
                                      "final_norm", "head"}));
  EXPECT_EQ(part->card().vocab, 97);
}

TEST(ReducedModel, ACutVocabularyIsTheFirstColumns) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Json& head : {Json{{"tied", "embed"}}, Json::object()}) {
      Json json = card();
      json["pattern"] = {"b", "a"};
      json["head"] = head;
      const auto model = testing::random_model(json, 3, dtype);
      const auto part = excerpt(*model, 64);
      const std::vector<Token> tokens = Numbers(5).tokens(20, 64);
      const auto whole = logits_of(model, tokens), cut = logits_of(part, tokens);
      for (std::size_t t = 0; t < tokens.size(); ++t)
        EXPECT_TRUE(same_bits(std::span(cut).subspan(t * 64, 64), std::span(whole).subspan(t * 97, 64))) << t;
    }
}

}  // namespace
}  // namespace plait::ablate
