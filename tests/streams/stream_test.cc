// Streams and the executor: the four-line use, batches, edits on nodes, phases, refusals.
#include "runtime/run/stream.h"

#include <gtest/gtest.h>

#include <limits>

#include "runtime/base/error.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::all_logits;
using testing::Numbers;
using testing::same_bits;

// Three blocks: attention and a delta rule in parallel, an MLP, attention alone.
Json card() {
  return Json::parse(R"({
    "plait_format": 1, "name": "small", "vocab": 97, "width": 64,
    "numerics": {"chunk": 16, "key_block": 64, "key_span": 64},
    "pattern": ["wide", "mlp", "deep"],
    "blocks": {
      "wide": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "branches": {
        "attention": {"kind": "softmax_attention", "num_heads": 2, "head_dim": 24, "rope": {"theta": 10000}, "window": 30},
        "delta": {"kind": "gated_delta_net", "num_heads": 2, "head_dim": 24, "value_head_dim": 16}}, "scales": [0.5, 1.0]}],
      "mlp": [{"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 40}],
      "deep": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "softmax_attention", "num_heads": 2, "head_dim": 24},
               {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 40}]
    },
    "final_norm": {"kind": "rms_norm"}, "head": {"tied": "embed"}})");
}

class Streams : public ::testing::Test {
 protected:
  std::shared_ptr<const Model> model_ = testing::random_model(card(), 3);
  std::vector<Token> tokens_ = Numbers(5).tokens(90, 97);

  std::vector<float> run(EditList edits, const std::vector<Index>& split = {90}) {
    StreamOptions options;
    options.edits = std::move(edits);
    Stream stream(model_, options);
    return all_logits(stream, tokens_, split);
  }
  std::span<const float> row(const std::vector<float>& logits, Index r) {
    return std::span(logits).subspan(static_cast<std::size_t>(r) * 97, 97);
  }
};

Edit edit(const std::string& node, Operator op, Index begin = 0, Index end = -1) {
  Edit e;
  e.node = node;
  e.op = op;
  e.begin = begin;
  e.end = end;
  return e;
}

TEST_F(Streams, FourLines) {
  Stream s(model_);
  const auto logits = s.feed(tokens_);
  EXPECT_EQ(logits.size(), 97u);
  s.feed({5});
  EXPECT_EQ(s.position(), 91);
  EXPECT_EQ(s.tokens().back(), 5);
}

TEST_F(Streams, AnEmptyFeedChangesNothing) {
  Stream s(model_);
  s.feed(tokens_);
  const std::vector<float> before(s.logits().begin(), s.logits().end());
  EXPECT_TRUE(same_bits(s.feed(std::span<const Token>()), before));
  EXPECT_EQ(s.position(), 90);
}

TEST_F(Streams, RefusesForeignTokensAndStaysUsable) {
  Stream s(model_);
  s.feed({1, 2});
  EXPECT_THROW(s.feed({3, 97}), Error);
  EXPECT_THROW(s.feed({-1}), Error);
  EXPECT_EQ(s.position(), 2);
  Stream clean(model_);
  EXPECT_TRUE(same_bits(s.feed({3}), clean.feed({1, 2, 3})));
}

TEST_F(Streams, LogitsOnlyWhereWanted) {
  Stream s(model_);
  std::vector<Index> seen;
  const Item item{&s.sequence(), tokens_, Want::last, Origin::given};
  run_batch(*model_, {&item, 1}, {{}, 16, {}}, [&](std::size_t, Index p, auto) { seen.push_back(p); });
  EXPECT_EQ(seen, std::vector<Index>{89});
}

TEST_F(Streams, RowBlocksChangeNoBit) {
  const std::vector<float> whole = run({});
  for (Index block : {1, 7, 64}) {
    Sequence sequence(*model_);
    std::vector<float> all;
    const Item item{&sequence, tokens_, Want::all, Origin::given};
    run_batch(*model_, {&item, 1}, {{}, block, {}}, [&](std::size_t, Index, std::span<const float> r) {
      all.insert(all.end(), r.begin(), r.end());
    });
    EXPECT_TRUE(same_bits(all, whole)) << "blocks of " << block;
  }
}

TEST_F(Streams, AnEmptyOrPowerlessEditChangesNoBit) {
  Edit none = edit("blocks.0.mixer", Operator::zero);
  none.strength = 0;
  EXPECT_TRUE(same_bits(run({none}), run({})));
  EXPECT_TRUE(same_bits(run({edit("blocks.0", Operator::skip, 500)}), run({})));
}

// Skipping a block must equal the model that was built without it.
TEST_F(Streams, SkippingABlockEqualsTheModelWithoutIt) {
  Json without = card();
  without["pattern"] = {"wide", "deep"};
  without["blocks"].erase("mlp");
  ModelData data = testing::random_data(without, 3);
  const ModelData& full = model_->data();
  for (auto& [node, tensors] : data.tensors) {
    const std::string source = node.starts_with("blocks.1.") ? "blocks.2." + node.substr(9) : node;
    tensors = full.tensors.at(source);
  }
  Stream shorter(std::make_shared<const Model>(data));
  EXPECT_TRUE(same_bits(run({edit("blocks.1", Operator::skip)}), all_logits(shorter, tokens_, {90})));
}

TEST_F(Streams, ZeroAndScaleActOnContributions) {
  Edit scale = edit("blocks.0.mixer.delta", Operator::scale);
  scale.value = 0;
  EXPECT_TRUE(same_bits(run({edit("blocks.0.mixer.delta", Operator::zero)}), run({scale})));
  scale.value = 1;
  EXPECT_TRUE(same_bits(run({scale}), run({})));
  Edit half = edit("blocks.0.mixer.delta", Operator::zero);
  half.strength = 0.5;
  scale.value = 0.5;
  EXPECT_TRUE(same_bits(run({half}), run({scale})));
  EXPECT_TRUE(same_bits(
      run({edit("blocks.0.mixer", Operator::zero)}),
      run({edit("blocks.0.mixer.delta", Operator::zero), edit("blocks.0.mixer.attention", Operator::zero)})));
}

TEST_F(Streams, TokenRangesCutAnywhere) {
  const std::vector<float> plain = run({}), edited = run({edit("blocks.2.mixer", Operator::zero, 33, 40)});
  for (Index r = 0; r < 33; ++r) EXPECT_TRUE(same_bits(row(plain, r), row(edited, r))) << r;
  EXPECT_FALSE(same_bits(row(plain, 33), row(edited, 33)));
  EXPECT_TRUE(same_bits(row(plain, 41), row(edited, 41)))
      << "the last block's mixer writes no state another layer reads";
  for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {34, 3}})
    EXPECT_TRUE(same_bits(run({edit("blocks.2.mixer", Operator::zero, 33, 40)}, split), edited));
}

TEST_F(Streams, ResetEveryEqualsFreshStatesAtItsMultiples) {
  // With period 16 = the chunk, the delta branch after token 32 must not see anything before.
  Edit every = edit("blocks.0.mixer.delta", Operator::reset_every);
  every.site = Site::state;
  every.value = 16;
  Edit once = every;
  once.op = Operator::reset;
  once.value = 0;
  EditList list;
  for (Index begin : {16, 32, 48, 64, 80}) {
    once.begin = begin;
    list.push_back(once);
  }
  EXPECT_TRUE(same_bits(run({every}), run(list)));
  EXPECT_FALSE(same_bits(run({every}), run({})));
}

TEST_F(Streams, PhasesFollowTheOriginOfTokens) {
  Edit decode = edit("blocks.0.mixer", Operator::zero);
  decode.phase = Phase::decode;
  EXPECT_TRUE(same_bits(run({decode}), run({}))) << "scored text is all prefill";
  StreamOptions options;
  options.edits = {decode};
  Stream s(model_, options), plain(model_);
  s.feed(std::span(tokens_).first(40));
  plain.feed(std::span(tokens_).first(40));
  EXPECT_TRUE(same_bits(s.logits(), plain.logits()));
  s.feed({7}, Origin::sampled);
  plain.feed({7}, Origin::sampled);
  EXPECT_FALSE(same_bits(s.logits(), plain.logits()));
  Edit after = edit("blocks.0.mixer", Operator::zero);
  after.phase = Phase::after_prefix;
  after.prefix_tokens = 50;
  EXPECT_TRUE(same_bits(run({after}), run({edit("blocks.0.mixer", Operator::zero, 50)})));
}

TEST_F(Streams, PhasesSurviveRollbackByReplay) {
  StreamOptions options;
  Edit decode = edit("blocks.0.mixer", Operator::zero);
  decode.phase = Phase::decode;
  options.edits = {decode};
  Stream s(model_, options), direct(model_, options);
  for (Stream* x : {&s, &direct}) {
    x->feed(std::span(tokens_).first(20));
    x->feed(std::span(tokens_).subspan(20, 15), Origin::sampled);
  }
  s.feed(std::span(tokens_).subspan(35, 30));
  ASSERT_GT(s.can_rollback(30).replayed, 0);
  s.rollback(30);
  EXPECT_EQ(s.state_digest(), direct.state_digest());
  EXPECT_TRUE(same_bits(s.feed({1}), direct.feed({1})));
}

TEST_F(Streams, EditsThatDoNotFitAreRefusedWithAReason) {
  const auto message = [&](Edit e) -> std::string {
    try {
      run({e});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message(edit("blocks.9.mixer", Operator::zero)).find("blocks.9.mixer"), std::string::npos);
  EXPECT_NE(message(edit("final_norm", Operator::skip)).find("cannot be skipped"), std::string::npos);
  Edit decay = edit("blocks.1.mlp", Operator::one);
  decay.site = Site::decay;
  EXPECT_NE(message(decay).find("decay/one"), std::string::npos);
  EXPECT_NE(message(edit("blocks.1.mlp", Operator::freeze)).find("freeze"), std::string::npos);
  Edit taps = edit("blocks.0.mixer.delta", Operator::identity);
  taps.site = Site::conv;
  taps.heads = {1};
  EXPECT_NE(message(taps).find("takes no 'heads'"), std::string::npos);
  Edit partial = edit("blocks.0", Operator::skip);
  partial.strength = 0.5;
  EXPECT_NE(message(partial).find("strength"), std::string::npos);
}

TEST(Edits, JsonRoundTrip) {
  const Json json = Json::parse(R"([{"where": "blocks.3.mixer/decay", "operator": "one", "heads": [0, 2],
      "tokens": [5, null], "phase": "after_prefix", "prefix_tokens": 9},
      {"where": "blocks.1", "operator": "skip"}, {"where": "a/window", "operator": "set", "value": 64.0, "sinks": 4},
      {"where": "a/state", "operator": "cast", "to": "int8", "every": "token"},
      {"where": "a/state", "operator": "noise", "value": 0.5, "seed": 7, "every": "chunk"},
      {"where": "a/conv", "operator": "identity", "activation": "drop"},
      {"where": "a/erase", "operator": "off", "norm_match": true},
      {"where": "a/state", "operator": "swap", "reference": "other", "tokens": [7, null]},
      {"where": "a/score", "operator": "zero", "keys": [2, 9]}])");
  const EditList edits = parse_edits(json);
  Json back = Json::array();
  for (const Edit& e : edits) back.push_back(to_json(e));
  EXPECT_EQ(parse_edits(back), edits);
  EXPECT_EQ(digest(edits), digest(parse_edits(back)));
}

TEST(Edits, BadJsonIsRefused) {
  for (const char* bad : {R"([1])", R"({"where": "a"})", R"([{"where": "a", "operator": "explode"}])",
                          R"([{"where": "a/nowhere", "operator": "zero"}])", R"([{"operator": "zero"}])",
                          R"([{"where": "a", "operator": "zero", "tokens": [5, 2]}])",
                          R"([{"where": "a", "operator": "zero", "strength": 2}])",
                          R"([{"where": "a/state", "operator": "cast", "to": "int4"}])",
                          R"([{"where": "a/state", "operator": "rank", "every": "layer"}])",
                          R"([{"where": "a/state", "operator": "noise", "seed": -1}])",
                          R"([{"where": "a/erase", "operator": "off", "norm_match": 1}])",
                          R"([{"where": "a", "operator": "zero", "colour": "red"}])"})
    EXPECT_THROW(parse_edits(Json::parse(bad)), Error) << bad;
}

TEST_F(Streams, ARestoreIntoAnythingElseIsRefused) {
  Stream s(model_);
  s.feed(tokens_);
  const Snapshot snapshot = s.snapshot();
  const auto other = testing::random_model(card(), 4);
  EXPECT_THROW(Stream::restore(other, snapshot), Error);
  StreamOptions fast;
  fast.compute.numerics = Numerics::fast;
  EXPECT_THROW(Stream::restore(model_, snapshot, fast), Error);
  StreamOptions edited;
  edited.edits = {edit("blocks.0.mixer", Operator::zero)};
  EXPECT_THROW(Stream::restore(model_, snapshot, edited), Error);
  Snapshot damaged = snapshot;
  damaged.states.pop_back();
  EXPECT_THROW(Stream::restore(model_, damaged), Error);
  damaged = snapshot;
  damaged.tokens.resize(3);
  EXPECT_THROW(Stream::restore(model_, damaged), Error);
  // Tokens that no state has seen: to catch up with so many would take years.
  damaged = snapshot;
  damaged.forgotten = Index{1} << 52;
  damaged.forgotten_digest = std::string(64, '0');
  EXPECT_THROW(Stream::restore(model_, damaged), Error);
}

TEST_F(Streams, RollbackPastTheStartIsRefused) {
  Stream s(model_);
  s.feed({1, 2, 3});
  EXPECT_FALSE(s.can_rollback(4).possible);
  EXPECT_THROW(s.rollback(4), Error);
  s.rollback(3);
  EXPECT_EQ(s.position(), 0);
}

TEST(Cards, MistakesAreNamedWhenTheModelIsBuilt) {
  const auto message = [](auto change) -> std::string {
    Json bad = card();
    change(bad);
    try {
      testing::random_model(bad, 1);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto names = [&](auto change, const char* what) {
    const std::string text = message(change);
    EXPECT_NE(text.find(what), std::string::npos) << "'" << text << "' does not name " << what;
  };
  names([](Json& c) { c["blocks"]["mlp"][0]["kind"] = "gated_mpl"; }, "gated_mlp");
  names([](Json& c) { c["blocks"]["mlp"][0]["hiden"] = 3; }, "hiden");
  names([](Json& c) { c["blocks"]["mlp"][0].erase("hidden"); }, "hidden");
  names([](Json& c) { c["colour"] = 1; }, "colour");
  names([](Json& c) { c["pattern"][0] = "nothing"; }, "nothing");
  names([](Json& c) { c["head"]["tied"] = "final"; }, "final");
  names([](Json& c) { c["numerics"]["key_span"] = 100; }, "key_span");
  names([](Json& c) { c["plait_format"] = 2; }, "format 1");
  names([](Json& c) { c["blocks"]["unused"] = c["blocks"]["mlp"]; }, "unused");
  names([](Json& c) { c["blocks"]["wide"][0]["scales"] = {1}; }, "scales");
}

TEST(Cards, TheExplicitGraphIsTheSameModel) {
  const Graph graph = expand_card(card(), "card");
  const Graph again = expand_card(explicit_graph(graph), "graph");
  ASSERT_EQ(graph.nodes.size(), again.nodes.size());
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    EXPECT_EQ(graph.nodes[i].name, again.nodes[i].name);
    EXPECT_EQ(graph.nodes[i].settings, again.nodes[i].settings);
    EXPECT_EQ(graph.nodes[i].inputs, again.nodes[i].inputs);
  }
  EXPECT_EQ(explicit_graph(again), explicit_graph(graph));
}

TEST(Cards, MisShapedMissingAndSurplusTensorsAreNamed) {
  const auto message = [](auto change) -> std::string {
    ModelData data = testing::random_data(card(), 1);
    change(data);
    try {
      const Model model(data);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  auto missing = message([](ModelData& d) { d.tensors["blocks.1.mlp"].erase("up"); });
  EXPECT_NE(missing.find("blocks.1.mlp"), std::string::npos) << missing;
  EXPECT_NE(missing.find("up"), std::string::npos) << missing;
  auto shape = message(
      [](ModelData& d) { d.tensors["final_norm"]["weight"] = make_tensor({3}, std::vector<float>(3)); });
  EXPECT_NE(shape.find("[3]"), std::string::npos) << shape;
  EXPECT_NE(shape.find("[64]"), std::string::npos) << shape;
  EXPECT_NE(message([](ModelData& d) {
              d.tensors["blocks.7"]["w"] = make_tensor({1}, std::vector<float>(1));
            }).find("blocks.7"),
            std::string::npos);
  EXPECT_NE(message([](ModelData& d) {
              d.tensors["embed"]["extra"] = make_tensor({1}, std::vector<float>(1));
            }).find("extra"),
            std::string::npos);
}

}  // namespace
}  // namespace plait
