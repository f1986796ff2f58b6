#include "tools/probe/long_context.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/run/edit_plan.h"
#include "runtime/run/stream.h"
#include "tests/testing.h"

namespace plait::probe {
namespace {

using testing::Numbers;

constexpr Index kVocab = 97;

std::shared_ptr<const Model> model_of(const Json& attention) {
  const auto block = [](Json mixer) {
    mixer.update({{"name", "mixer"}, {"norm", {{"kind", "rms_norm"}}}});
    return Json::array({mixer});
  };
  const Json card = {{"plait_format", 1},
                     {"name", "two-kinds"},
                     {"vocab", kVocab},
                     {"width", 32},
                     {"pattern", {"delta", "attention", "delta"}},
                     {"blocks",
                      {{"delta", block({{"kind", "delta_net"}, {"num_heads", 2}, {"head_dim", 16}})},
                       {"attention", block(attention)}}},
                     {"final_norm", {{"kind", "rms_norm"}}},
                     {"head", Json::object()}};
  return testing::random_model(card, 3);
}

std::shared_ptr<const Model> model() {
  return model_of(
      {{"kind", "softmax_attention"}, {"num_heads", 2}, {"head_dim", 16}, {"rope", {{"theta", 1e4}}}});
}

std::vector<Variant> variants(const Model& model, Index window = 0,
                              const std::vector<std::string>& off = {}) {
  std::vector<std::string> notes;
  std::vector<Variant> all = long_context_variants(model, window, 2, off, notes);
  EXPECT_TRUE(notes.empty());
  return all;
}

// Nats of the last of `tokens` after the others.
double last_loss(std::shared_ptr<const Model> model, std::span<const Token> tokens,
                 const EditList& edits = {}) {
  StreamOptions options;
  options.edits = edits;
  Stream stream(std::move(model), options);
  return score_token(stream.feed(tokens.first(tokens.size() - 1)), tokens.back()).nll;
}

TEST(LongContext, BinsDoubleAndEndWithTheText) {
  const std::vector<ContextBin> bins = context_bins(300);
  ASSERT_EQ(bins.size(), 4u);
  const Index begins[] = {1, 64, 128, 256}, ends[] = {64, 128, 256, 300};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(bins[i].begin, begins[i]);
    EXPECT_EQ(bins[i].end, ends[i]);
  }
  ASSERT_EQ(context_bins(2).size(), 1u);
  EXPECT_EQ(context_bins(2)[0].end, 2);
}

TEST(LongContext, VariantsAreTheWholeAWindowAndEachKind) {
  const auto names = [](const std::vector<Variant>& all) {
    std::string joined;
    for (const Variant& v : all) joined += v.name + ";";
    return joined;
  };
  const auto m = model();
  EXPECT_EQ(names(variants(*m)), "whole;without delta_net;without softmax_attention;");
  EXPECT_EQ(names(variants(*m, 16, {"none"})), "whole;window 16;");
  const std::vector<Variant> one = variants(*m, 0, {"delta_net"});
  EXPECT_EQ(names(one), "whole;without delta_net;");
  EXPECT_EQ(one[1].edits.size(), 2u);  // a place for each of its mixers
  try {
    variants(*m, 0, {"mamba2"});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("there are delta_net, softmax_attention"), std::string::npos)
        << error.what();
  }
}

TEST(LongContext, AModelWithoutAWindowSaysSo) {
  const auto m = model_of({{"kind", "path_attention"}, {"num_heads", 2}, {"head_dim", 16}});
  std::vector<std::string> notes;
  const std::vector<Variant> all = long_context_variants(*m, 16, 2, {}, notes);
  EXPECT_EQ(all.size(), 3u);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("no window: "), std::string::npos) << notes[0];
}

TEST(LongContext, LossesAreThoseOfEveryTokenAfterAllBefore) {
  const auto m = model();
  const std::vector<Token> tokens = Numbers(4).tokens(700, kVocab);  // more than one feed
  for (const Variant& variant : variants(*m, 16)) {
    SCOPED_TRACE(variant.name);
    Index seen = 0;
    const std::vector<double> losses =
        losses_by_position(m, variant.edits, tokens, {}, [&](Index t) { seen = t; });
    EXPECT_EQ(losses.size(), 699u);
    EXPECT_EQ(seen, 699);
    for (const std::size_t t : {1u, 2u, 63u, 300u, 513u, 699u})
      EXPECT_EQ(losses[t - 1], last_loss(m, std::span(tokens).first(t + 1), variant.edits)) << t;
  }
}

TEST(LongContext, AWindowChangesWhatLiesBehindItOnly) {
  const auto m = model();
  const std::vector<Token> tokens = Numbers(5).tokens(100, kVocab);
  const std::vector<double> whole = losses_by_position(m, {}, tokens, {});
  EXPECT_EQ(losses_by_position(m, variants(*m, 100)[1].edits, tokens, {}), whole);
  const std::vector<double> windowed = losses_by_position(m, variants(*m, 16)[1].edits, tokens, {});
  // Token t is predicted by row t - 1, which sees all t rows as long as they are 16 and 2 sinks.
  for (std::size_t t = 1; t < 100; ++t) EXPECT_EQ(windowed[t - 1] == whole[t - 1], t <= 18) << t;
}

TEST(LongContext, RestartsReadTheLastTokensOnly) {
  const auto m = model();
  const std::vector<Token> tokens = Numbers(6).tokens(90, kVocab);
  EXPECT_EQ(restarted_losses(m, tokens, 89, 89, {}), losses_by_position(m, {}, tokens, {}));
  for (const Index stride : {16, 8, 3, 1}) {
    SCOPED_TRACE(stride);
    const std::vector<double> losses = restarted_losses(m, tokens, 16, stride, {});
    ASSERT_EQ(losses.size(), 89u);
    for (Index t = 1; t < 90; ++t) {
      // The block of t ends with the token before `end`, which has 16 tokens of context.
      const Index end = (t - 1) / stride * stride + stride + 1, begin = std::max<Index>(0, end - 1 - 16);
      EXPECT_EQ(losses[static_cast<std::size_t>(t - 1)],
                last_loss(m, std::span(tokens).subspan(static_cast<std::size_t>(begin),
                                                       static_cast<std::size_t>(t + 1 - begin))))
          << t;
    }
  }
}

TEST(LongContext, AnswersAreCountedByDistance) {
  const auto m = model();
  const std::vector<Variant> all = variants(*m);
  ablate::TaskSetup setup;
  setup.model = m;
  for (const Variant& v : all)
    setup.plans.push_back(v.edits.empty() ? nullptr : std::make_shared<EditPlan>(*m, v.edits));
  ablate::Generator generator;
  generator.kind = ablate::Generator::Kind::copying;
  generator.symbols = ablate::Generator::Symbols::ids;
  generator.lengths = {24, 8};
  generator.items = 3;
  const auto answers = far_answers(generator, setup);
  ASSERT_EQ(answers.size(), 2u);
  const ablate::Probes probes(generator, nullptr, kVocab);
  for (std::size_t l = 0; l < 2; ++l) {
    ASSERT_EQ(answers[l].size(), all.size());
    for (std::size_t v = 0; v < all.size(); ++v) {
      std::vector<double> accuracies, right_to_the_last, losses;
      double distance = 0;
      for (Index i = 0; i < probes.count(); ++i) {
        const ablate::Probe probe = probes[i];
        if (probe.length != generator.lengths[l]) continue;
        for (const ablate::ProbeQuery& query : probe.queries) {
          double right = 0, nll = 0;
          for (Index t = query.begin; t < query.end; ++t) {
            StreamOptions options;
            options.edits = all[v].edits;
            Stream stream(m, options);
            const TokenScore score =
                score_token(stream.feed(std::span(probe.tokens).first(static_cast<std::size_t>(t))),
                            probe.tokens[static_cast<std::size_t>(t)]);
            right += score.top1;
            nll += score.nll;
          }
          accuracies.push_back(right / static_cast<double>(query.end - query.begin));
          right_to_the_last.push_back(right == static_cast<double>(query.end - query.begin));
          losses.push_back(nll / static_cast<double>(query.end - query.begin));
          distance += static_cast<double>(query.distance);
        }
      }
      EXPECT_EQ(answers[l][v].accuracy.value, mean_of(accuracies).value);
      EXPECT_EQ(answers[l][v].right.value, mean_of(right_to_the_last).value);
      // The task's log-softmax narrows to f32 where this one does not: 2^-24 of a loss of a few nats.
      EXPECT_NEAR(answers[l][v].nll.value, mean_of(losses).value, 1e-6);
      EXPECT_EQ(answers[l][v].distance, distance / static_cast<double>(accuracies.size()));
    }
  }
}

}  // namespace
}  // namespace plait::probe
