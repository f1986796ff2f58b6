// What the program does with encoders: it makes, shows, verifies and scores them, and says in one sentence
// what they cannot do.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/error.h"
#include "tests/changed_kinds.h"
#include "tests/cli/program.h"
#include "tests/testing.h"
#include "tools/verification.h"

namespace plait {
namespace {

using namespace testing;

std::string made(const std::string& card) {
  const std::string name = card + ".h5";
  if (!exists(name)) {
    const Outcome outcome =
        plait(cat("new '" PLAIT_SOURCE_DIR "/tests/cli/cards/", card, ".json' ", name, " --seed 7 --quiet"));
    EXPECT_EQ(outcome.code, 0) << outcome.error;
  }
  return name;
}

TEST(Encoder, IsShownAsWhatItIs) {
  const Json json = plait("inspect " + made("encoder") + " --json -").json();
  EXPECT_EQ(json["causal"], false);
  for (const Json& node : json["nodes"])
    for (const Json& site : node["sites"]) EXPECT_NE(site, "state") << node["name"];
  const Outcome shown = plait("inspect encoder.h5");
  EXPECT_NE(shown.out.find("encoder"), std::string::npos) << shown.out;
  EXPECT_EQ(shown.out.find("state of a stream"), std::string::npos) << shown.out;
  ASSERT_EQ(shell("\"$PLAIT\" inspect encoder.h5 --graph > encoder_graph.json").code, 0);
  EXPECT_EQ(plait("new encoder_graph.json again.h5 --seed 7 --json -").json()["sha256"], json["sha256"]);
  EXPECT_EQ(plait("kinds sinkhorn_attention --json -").json()[0]["graphs"], "encoder");
  EXPECT_EQ(plait("kinds softmax_attention --json -").json()[0]["graphs"], "causal, encoder");
  EXPECT_EQ(plait("kinds mamba2 --json -").json()[0]["graphs"], "causal");
}

TEST(Encoder, IsVerified) {
  for (const char* card : {"encoder", "equivariant"}) {
    const Outcome outcome = plait(cat("verify ", made(card), " -n 70 --json -"));
    EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.error;
    std::string names;
    const Json json = outcome.json();
    for (const Json& check : json["checks"]) names += check["name"].get<std::string>() + "; ";
    EXPECT_NE(names.find("packing"), std::string::npos) << names;
    EXPECT_NE(names.find("threads"), std::string::npos) << names;
    EXPECT_EQ(names.find("rollback"), std::string::npos) << names;
  }
}

TEST(Encoder, IsScoredByReconstructionOrBehindAMask) {
  const std::string score = "score " + made("encoder") + " --text " + text() + " --context 50 --json -";
  const Json seen = plait(score).json(), masked = plait(score + " --mask 0").json();
  EXPECT_EQ(seen["objective"], "reconstruction");
  EXPECT_EQ(masked["objective"], "masked");
  for (const Json& json : {seen, masked}) {
    EXPECT_EQ(json["tokens"], 400);
    EXPECT_EQ(json["scored"], 400);
    EXPECT_TRUE(std::isfinite(json["nll"].get<double>()));
    EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(json["nll"].get<double>()), 1e-6);
  }
  EXPECT_NE(seen["logits_sha256"], masked["logits_sha256"]);
  // Tied embeddings: a token that is seen is read off, behind the mask it is not.
  EXPECT_LT(seen["nll"].get<double>(), masked["nll"].get<double>());
  EXPECT_EQ(plait(score + " --threads 3").json()["logits_sha256"], seen["logits_sha256"]);
  EXPECT_EQ(plait("score " + small() + " --text small.txt --json -").json()["objective"], "next_token");
}

TEST(Encoder, IsEdited) {
  const std::string score = "score " + made("encoder") + " --text " + text() + " --context 50 --json -";
  const auto edited = [&](const std::string& edits, const std::string& more = "") {
    write(file("edits.json"), edits);
    return plait(score + " --edits edits.json" + more);
  };
  const std::string clean = plait(score).json()["logits_sha256"];
  for (const char* where :
       {"blocks.0.mixer.pathway/head", "blocks.1.mixer/head", "blocks.2.mixer/head", "blocks.2.mixer"}) {
    const std::string zero = cat(R"([{"where": ")", where, R"(", "operator": "zero"}])");
    EXPECT_NE(edited(zero).json()["logits_sha256"], clean) << where;
    EXPECT_EQ(edited(zero).json()["edits"].size(), 1u);
    EXPECT_NE(edited(zero, " --mask 0").json()["logits_sha256"],
              plait(score + " --mask 0").json()["logits_sha256"]);
  }
  EXPECT_EQ(edited(R"([{"where": "blocks.1.mixer/head", "operator": "scale", "value": 1}])")
                .json()["logits_sha256"],
            clean);
  expect_error(edited(R"([{"where": "blocks.1.mixer", "operator": "zero", "tokens": [3, 9]}])"), 3,
               "reads a sequence whole");
  const std::string sites = plait("inspect encoder.h5 --sites").out;
  EXPECT_NE(sites.find("blocks.1.mixer/head"), std::string::npos) << sites;
  EXPECT_EQ(sites.find("/state"), std::string::npos) << sites;
}

TEST(Encoder, HasNoStream) {
  const std::string model = made("encoder");
  text();
  expect_error(plait("run " + model + " --prompt a -n 1"), 3, "is an encoder");
  expect_error(plait("bench " + model + " -p 8 -n 1"), 3, "is an encoder");
  expect_error(plait("ablate " + model + " --sweep mixer.zero --text small.txt --out out --quiet"), 3,
               "is an encoder");
  expect_error(plait("score " + model + " --text small.txt --split 7"), 3, "--split");
  expect_error(plait("score " + model + " --text small.txt --stream"), 3, "--stream");
  expect_error(plait("score " + model + " --text small.txt --mask 256"), 3, "256");
  expect_error(plait("score " + small() + " --text small.txt --mask 0"), 3, "--mask");
  expect_error(plait("score " + made("equivariant") + " --text small.txt"), 3, "64 numbers a token");
}

TEST(Encoder, CardsWithMistakes) {
  const Json card = Json::parse(read(PLAIT_SOURCE_DIR "/tests/cli/cards/encoder.json"));
  const auto refuse = [&](const Json& changed, const std::string& part) {
    write(file("card.json"), changed.dump());
    SCOPED_TRACE(part);
    expect_error(plait("new card.json bad.h5"), 3, part);
    EXPECT_FALSE(exists("bad.h5"));
  };
  Json changed = card;
  changed["causal"] = "no";
  refuse(changed, "'causal' must be true or false");
  changed = card;
  changed.erase("causal");
  refuse(changed, "graph is causal");
  changed = card;
  changed["blocks"]["soft"][0]["kind"] = "mamba2";
  refuse(changed, "no place in an encoder");
  changed = card;
  changed["blocks"]["sinkhorn"][0]["max_iter"] = 0;
  refuse(changed, "max_iter");
}

// A layer that looks at the other sequences of its walk is found out.
TEST(Encoder, VerificationFindsALayerThatMindsItsCompany) {
  const Registry registry = with_afterwards("sinkhorn_attention", mind_company);
  const Json card = card_of_kind("sinkhorn_attention", {{"num_heads", 2}, {"head_dim", 16}});
  const auto ids = Numbers(5).tokens(70, 97);
  for (const bool honest : {true, false}) {
    Verification v;
    check_equalities(
        std::make_shared<const Model>(random_data(card, 3), honest ? Registry::builtin() : registry), ids, {},
        v);
    for (const EqualityCheck& c : v.checks) EXPECT_EQ(c.passed, honest || c.name != "packing") << c.name;
    EXPECT_EQ(v.passed(), honest);
  }
}

}  // namespace
}  // namespace plait
