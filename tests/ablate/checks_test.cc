// The validity gate passes on an honest engine, and each of its checks finds a mistake made for it.
#include "tools/ablate/checks.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "layers/reference/twin.h"
#include "runtime/base/error.h"
#include "tests/changed_kinds.h"
#include "tests/testing.h"
#include "weights/model_file.h"

namespace plait::ablate {
namespace {

using testing::Numbers;
using Verdict = Check::Verdict;

Json card() {
  return Json::parse(R"({
    "plait_format": 1, "name": "small", "vocab": 97, "width": 32,
    "numerics": {"chunk": 16, "key_block": 64, "key_span": 64},
    "pattern": ["wide", "deep", "deep", "wide"],
    "blocks": {
      "wide": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "branches": {
        "attention": {"kind": "softmax_attention", "num_heads": 2, "head_dim": 16, "rope": {"theta": 10000}, "window": 30},
        "delta": {"kind": "gated_delta_net", "num_heads": 2, "head_dim": 16, "value_head_dim": 8}}, "scales": [0.5, 1.25]},
        {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 40}],
      "deep": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "delta_net", "num_heads": 2, "head_dim": 16},
               {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 40}]
    },
    "final_norm": {"kind": "rms_norm"}, "head": {"tied": "embed"}})");
}

Json card_without_delta_rule() {
  Json json = card();
  json["blocks"].erase("wide");
  json["pattern"] = {"deep", "deep"};
  json["blocks"]["deep"][0]["kind"] = "linear_attention";
  return json;
}

EditList zero(const std::string& where) { return {parse_edit({{"where", where}, {"operator", "zero"}})}; }

class Checks : public ::testing::Test {
 protected:
  // Of a model whose layers come from this registry.
  Subject subject(Registry registry = Registry::builtin(), const Json& json = card()) {
    tokens_ = Numbers(5).tokens(200, json["vocab"].get<Index>());
    registry_ = std::move(registry);
    return {std::make_shared<const Model>(testing::random_data(json, 3), registry_), tokens_, {}};
  }

  std::vector<Token> tokens_;
  Registry registry_;  // models refer to it
  const std::vector<EditList> conditions_ = {
      {}, zero("blocks.0.mixer"), zero("blocks.1.mixer"), zero("blocks.2.mlp"), zero("blocks.3.mixer.delta")};
};

void expect(const Check& check, Verdict verdict, const std::string& detail = {}) {
  EXPECT_EQ(check.verdict, verdict) << check.id << ": " << check.detail;
  EXPECT_NE(check.detail.find(detail), std::string::npos)
      << check.id << ": " << check.detail << "; not " << detail;
}

TEST_F(Checks, AnHonestEnginePasses) {
  const auto checks = run_checks(subject(), conditions_, {});
  ASSERT_EQ(checks.size(), 10u);
  for (std::size_t i = 0; i < checks.size(); ++i) {
    EXPECT_EQ(checks[i].id, cat("C", i + 1));
    expect(checks[i], Verdict::passed);
  }
  EXPECT_TRUE(passed(checks));
  expect(checks[2], Verdict::passed, "each of 4 blocks");
  expect(checks[3], Verdict::passed, "5 of 5 conditions (4 of them change these logits)");
  expect(checks[4], Verdict::passed, ", past its furthest window");
  expect(checks[6], Verdict::passed, "each of 6 mixers");
  expect(checks[8], Verdict::passed, "4 delta-rule layers");
}

TEST_F(Checks, FastNumericsPassToo) {
  Subject s = subject();
  s.model = testing::random_model(card(), 3, DType::bf16);
  s.compute = {Numerics::fast, Isa::automatic, 2};
  for (const Check& check : run_checks(s, conditions_, {})) expect(check, Verdict::passed);
}

TEST_F(Checks, TheBundledModelPasses) {
  const auto model = load(PLAIT_SOURCE_DIR "/weights/models/tiny-hybrid.h5");
  const std::vector<Token> text = Numbers(7).tokens(300, 256);
  const std::vector<EditList> conditions = {zero("blocks.1.mixer.linear"), zero("blocks.3.mixer")};
  for (const Check& check : run_checks({model, text, {}}, conditions, {})) expect(check, Verdict::passed);
}

TEST_F(Checks, WhatDoesNotApplyIsNotPassed) {
  const Subject s = subject(Registry::builtin(), card_without_delta_rule());
  expect(check_effective_matrix(s), Verdict::not_applicable, "no delta-rule layer");
  expect(check_wavefront(s, {}, {}), Verdict::not_applicable, "no conditions");
  Json bare = testing::card_of_kind("gated_mlp", {{"hidden", 48}});
  bare.erase("groups");
  const std::vector<Token> text = {1, 2, 3};
  const Subject t = {testing::random_model(bare, 3), text, {}};
  expect(check_skip(t), Verdict::not_applicable, "no block");
  expect(check_shadow(t), Verdict::not_applicable, "has a state");
}

TEST_F(Checks, NoTextAndWrongTokensAreErrors) {
  Subject s = subject();
  s.tokens = {};
  EXPECT_THROW(run_checks(s, {}, {}), Error);
  const std::vector<Token> wrong = {1, 97};
  s.tokens = wrong;
  EXPECT_THROW(run_checks(s, {}, {}), Error);
}

// Mistakes.

TEST_F(Checks, ALayerThatIsNotAFunctionFailsC1C2C8) {
  auto calls = std::make_shared<int>(0);
  const Registry registry =
      testing::with_afterwards("gated_mlp", [calls](const Ports& ports, std::span<const Segment> segments) {
        ports.output(segments[0].first_row, 0) += static_cast<float>(++*calls) * 1e-3f;
      });
  const Subject s = subject(registry);
  expect(check_empty_intervention(s), Verdict::failed, "differ");
  expect(check_strength_zero(s), Verdict::failed, "differ");
  expect(check_mean_of_constant(s), Verdict::failed, "constant over 1 tokens");
}

TEST_F(Checks, ALayerThatKnowsItsDepthInTheModelFailsC3) {
  auto made = std::make_shared<int>(0);
  const Registry registry = testing::with("delta_net", [made](Kind& kind) {
    const auto honest = kind.make;
    kind.make = [honest, made](Config& config, const Parameters& parameters) {
      std::map<std::string, Tensor> tensors = parameters.all();
      std::vector<float> gain(parameters.vector("norm").begin(), parameters.vector("norm").end());
      gain[0] += static_cast<float>(++*made) * 1e-3f;  // a constant of its own that no card knows
      tensors["norm"] = make_tensor(tensors["norm"].shape, gain);
      return honest(config, Parameters(std::move(tensors)));
    };
  });
  expect(check_skip(subject(registry)), Verdict::failed, "skipping block 'blocks.0'");
}

TEST_F(Checks, ALayerThatMindsItsCompanyFailsC4) {
  const Subject s = subject(testing::with_afterwards("gated_mlp", testing::mind_company));
  expect(check_wavefront(s, conditions_, {}), Verdict::failed, "in the wavefront and alone differ");
  expect(check_empty_intervention(s), Verdict::passed);
  expect(check_splits(s), Verdict::passed);
}

TEST_F(Checks, ALayerThatMindsItsRowCountFailsC5C6) {
  const Subject s = subject(testing::with_afterwards("gated_mlp", testing::mind_row_counts));
  expect(check_splits(s), Verdict::failed, "split 1: the logits after token 0 differ");
  expect(check_resumption(s), Verdict::failed, "rollback");
  expect(check_empty_intervention(s), Verdict::passed);
  expect(check_strength_zero(s), Verdict::passed);
}

TEST_F(Checks, ALayerWhoseRunOthersNoticeFailsC7) {
  const auto spoil = [](const Ports& ports, std::span<const Segment> segments) {
    for (const Segment& s : segments) const_cast<float*>(ports.inputs[0].row(s.first_row))[0] += 1;
  };
  const Subject s = subject(testing::with_afterwards("softmax_attention", spoil));
  expect(check_shadow(s), Verdict::failed, "blocks.0.mixer.attention");
  expect(check_strength_zero(s), Verdict::passed);
}

TEST_F(Checks, ALayerThatIsOffByAThousandthFailsC9C10) {
  const auto scale = [](const Ports& ports, std::span<const Segment> segments) {
    for (const Segment& s : segments)
      for (Index c = 0; c < ports.output.cols; ++c) ports.output(s.first_row + s.rows - 1, c) *= 1.001f;
  };
  const Subject s = subject(testing::with_afterwards("delta_net", scale));
  expect(check_effective_matrix(s), Verdict::failed, "'blocks.1.mixer'");
  expect(check_double_precision(s), Verdict::failed, "the logits' error falls from");
}

class Narrow final : public Twin {
 public:
  explicit Narrow(std::shared_ptr<Twin> twin) : twin_(std::move(twin)) {}
  void run(std::span<const View<const double>> inputs, std::span<const Token> tokens,
           View<double> output) const override {
    twin_->run(inputs, tokens, output);
    for (Index r = 0; r < output.rows; ++r)
      for (Index c = 0; c < output.cols; ++c) output(r, c) = static_cast<float>(output(r, c));
  }

 private:
  std::shared_ptr<Twin> twin_;
};

TEST_F(Checks, AReferenceThatIsNotDoubleFailsC10) {
  const Registry registry = testing::with("gated_mlp", [](Kind& kind) {
    const auto honest = kind.twin;
    kind.twin = [honest](Config& config, const Parameters& parameters) {
      return std::make_shared<Narrow>(honest(config, parameters));
    };
  });
  expect(check_double_precision(subject(registry)), Verdict::failed, "values moved by 2^-32");
}

// checks.json

TEST_F(Checks, TheFileSaysWhatWasFound) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("checks_test." + std::to_string(::getpid()))).string();
  std::vector<Check> checks = {{"C1", "one", Verdict::passed, "All well.", 0.5},
                               {"C9", "nine", Verdict::not_applicable, "no such layer", 0}};
  write_checks(path, checks);
  Json json = Json::parse(std::ifstream(path));
  EXPECT_EQ(json["passed"], true);
  EXPECT_EQ(
      json["checks"][0],
      Json::parse(
          R"({"id": "C1", "name": "one", "verdict": "passed", "passed": true, "detail": "All well.", "seconds": 0.5})"));
  EXPECT_EQ(json["checks"][1]["verdict"], "not applicable");
  EXPECT_TRUE(json["checks"][1]["passed"].is_null());
  EXPECT_EQ(json["checks"][1]["detail"], "not applicable: no such layer");
  checks.push_back({"C10", "ten", Verdict::failed, "An order too many.", 0});
  write_checks(path, checks);
  json = Json::parse(std::ifstream(path));
  EXPECT_EQ(json["passed"], false);
  EXPECT_EQ(json["checks"][2]["passed"], false);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace plait::ablate
