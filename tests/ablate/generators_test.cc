// Generated items: what is asked stands where it is said to stand, and items are draws of their own.
#include "tools/ablate/generators.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "runtime/base/error.h"
#include "runtime/run/stream.h"
#include "tests/ablate/task_fixtures.h"
#include "tools/ablate/scores.h"

namespace plait {
namespace {

using ablate::Generator;
using ablate::Probe;
using ablate::ProbeQuery;
using ablate::Probes;
using Kind = Generator::Kind;
using Symbols = Generator::Symbols;

const ByteTokenizer kBytes;
const testing::MergingTokenizer kMerging;

std::vector<Generator> all_generators(Symbols symbols) {
  return {{Kind::recall, symbols, {60, 240}, {1, 4}, {}, 6, 3},
          {Kind::needle, symbols, {140, 400}, {}, {0, 0.3, 1}, 4, 3},
          {Kind::induction, symbols, {8, 33}, {}, {}, 4, 3},
          {Kind::copying, symbols, {8, 33}, {}, {}, 4, 3}};
}

std::string text_of(const Probe& probe) { return kBytes.decode(probe.tokens); }

void expect_copies(const Probe& probe) {
  Index end = 1;
  ASSERT_FALSE(probe.queries.empty());
  for (const ProbeQuery& query : probe.queries) {
    EXPECT_GE(query.begin, end);
    EXPECT_GT(query.end, query.begin);
    EXPECT_GE(query.begin, query.distance);
    EXPECT_GE(query.distance, query.end - query.begin) << "an answer is over before it is asked for";
    for (Index t = query.begin; t < query.end; ++t)
      EXPECT_EQ(probe.tokens[static_cast<std::size_t>(t)],
                probe.tokens[static_cast<std::size_t>(t - query.distance)]);
    end = query.end;
  }
  EXPECT_LE(end, static_cast<Index>(probe.tokens.size()));
}

TEST(Generators, EveryAnswerStandsAtItsDistance) {
  for (const Symbols symbols : {Symbols::text, Symbols::ids})
    for (const Generator& generator : all_generators(symbols)) {
      const Probes probes(generator, &kBytes, 256);
      const Index combinations = generator.kind == Kind::recall ? 4 : generator.kind == Kind::needle ? 6 : 2;
      ASSERT_EQ(probes.count(), combinations * generator.items);
      for (Index i = 0; i < probes.count(); ++i) expect_copies(probes[i]);
    }
}

TEST(Generators, ItemsDependOnTheirOwnFactorsAndTheSeedOnly) {
  for (const Symbols symbols : {Symbols::text, Symbols::ids})
    for (const Generator& many : all_generators(symbols)) {
      Generator one = many;
      one.lengths = {many.lengths[1]};
      if (!many.pairs.empty()) one.pairs = {many.pairs[1]};
      if (!many.depths.empty()) one.depths = {many.depths[2]};
      one.items = many.items + 1;
      const Probes all(many, &kBytes, 256), few(one, &kBytes, 256);
      for (Index i = 0; i < many.items; ++i)
        EXPECT_EQ(few[i].tokens, all[all.count() - many.items + i].tokens) << "the last combination";
      EXPECT_NE(few[0].tokens, few[1].tokens);
      one.seed = 4;
      EXPECT_NE(Probes(one, &kBytes, 256)[0].tokens, few[0].tokens);
    }
}

TEST(Generators, RecallAsksEveryPairOnceAndKeysHaveOneValue) {
  const Probes probes({Kind::recall, Symbols::text, {600}, {20}, {}, 5, 1}, &kBytes, 256);
  for (Index i = 0; i < probes.count(); ++i) {
    const Probe probe = probes[i];
    const std::string text = text_of(probe);
    EXPECT_LE(text.size(), 600u);
    EXPECT_EQ(probe.pairs, 20);
    std::set<std::string> keys, asked;
    for (std::size_t p = 0; p < 20; ++p) keys.insert(text.substr(6 * p, 3));
    EXPECT_EQ(keys.size(), 20u);
    ASSERT_EQ(probe.queries.size(), 20u);
    for (const ProbeQuery& query : probe.queries) {
      asked.insert(text.substr(static_cast<std::size_t>(query.begin) - 3, 3));
      EXPECT_EQ(query.end - query.begin, 2);
      EXPECT_LE(Index{1} << query.position_bin, query.distance);
      EXPECT_GT(Index{2} << query.position_bin, query.distance);
    }
    EXPECT_EQ(asked, keys);
    EXPECT_EQ(std::count(text.begin(), text.end(), '='), 40) << "nothing else looks like a pair";
  }
}

TEST(Generators, RecallOfIdsAsksForKeysThatOccurTwice) {
  const Probe probe = Probes({Kind::recall, Symbols::ids, {400}, {12}, {}, 1, 1}, nullptr, 1000)[0];
  EXPECT_LE(probe.tokens.size(), 400u);
  std::set<Token> pairs(probe.tokens.begin(), probe.tokens.begin() + 24);
  EXPECT_EQ(pairs.size(), 24u) << "keys and values all differ";
  for (Index p = 0; p < 12; ++p)
    EXPECT_EQ(
        std::count(probe.tokens.begin(), probe.tokens.end(), probe.tokens[static_cast<std::size_t>(2 * p)]),
        2);
}

TEST(Generators, TheNeedleLiesAtItsDepth) {
  const std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};
  for (const Symbols symbols : {Symbols::text, Symbols::ids}) {
    const Probes probes({Kind::needle, symbols, {2000}, {}, depths, 3, 1}, &kBytes, 256);
    for (Index i = 0; i < probes.count(); ++i) {
      const Probe probe = probes[i];
      ASSERT_EQ(probe.queries.size(), 1u);
      const ProbeQuery& query = probe.queries[0];
      EXPECT_EQ(query.position_bin, std::lround(100 * *probe.depth));
      EXPECT_EQ(probe.depth, depths[static_cast<std::size_t>(i / 3)]);
      EXPECT_LE(probe.tokens.size(), 2000u);
      EXPECT_GE(probe.tokens.size(), symbols == Symbols::text ? 1950u : 2000u)
          << "one sentence short at most";
      // Needle, question and sentences take some fifty characters each.
      EXPECT_NEAR(static_cast<double>(query.begin - query.distance) / 2000, *probe.depth, 0.05);
      if (symbols == Symbols::text) {
        const std::string text = text_of(probe), question = text.substr(text.rfind("The code of "));
        EXPECT_EQ(text.find(question.substr(0, 18)) + 21,
                  static_cast<std::size_t>(query.begin - query.distance));
        EXPECT_EQ(query.end - query.begin, 6);
      } else {
        EXPECT_EQ(std::count(probe.tokens.begin(), probe.tokens.end(), probe.tokens.back()), 2);
      }
    }
  }
}

TEST(Generators, CopiesAreAskedInQuarters) {
  for (const Kind kind : {Kind::induction, Kind::copying})
    for (const Symbols symbols : {Symbols::text, Symbols::ids}) {
      const Probe probe = Probes({kind, symbols, {30}, {}, {}, 1, 1}, &kBytes, 256)[0];
      const Index mark = kind == Kind::copying;
      EXPECT_EQ(probe.tokens.size(), static_cast<std::size_t>(60 + mark));
      ASSERT_EQ(probe.queries.size(), 4u);
      Index asked = 0;
      for (Index q = 0; q < 4; ++q) {
        EXPECT_EQ(probe.queries[static_cast<std::size_t>(q)].position_bin, q);
        EXPECT_EQ(probe.queries[static_cast<std::size_t>(q)].distance, 30 + mark);
        asked +=
            probe.queries[static_cast<std::size_t>(q)].end - probe.queries[static_cast<std::size_t>(q)].begin;
      }
      EXPECT_EQ(asked, kind == Kind::copying ? 30 : 29) << "nothing tells the first symbol of a repetition";
    }
}

TEST(Generators, TokenizersThatJoinAndAddTokens) {
  // Every item begins with the tokenizer's first token, and special tokens are never drawn.
  for (const Generator& generator : all_generators(Symbols::ids)) {
    const Probes probes(generator, &kMerging, 256);
    for (Index i = 0; i < probes.count(); ++i) {
      const Probe probe = probes[i];
      expect_copies(probe);
      EXPECT_EQ(probe.tokens[0], 110);
      EXPECT_TRUE(std::all_of(probe.tokens.begin() + 1, probe.tokens.end(), [](Token t) { return t < 110; }));
    }
  }
  // " 4" at the beginning of a code and "12;" at the end of a pair are single tokens there.
  const Probes needles({Kind::needle, Symbols::text, {200}, {}, {0.5}, 40, 1}, &kMerging, 256);
  std::set<Index> sizes;
  for (Index i = 0; i < needles.count(); ++i) {
    const Probe probe = needles[i];
    expect_copies(probe);
    sizes.insert(probe.queries[0].end - probe.queries[0].begin);
  }
  EXPECT_EQ(sizes, (std::set<Index>{5, 6}));
  const Probes pairs({Kind::recall, Symbols::text, {2400}, {100}, {}, 8, 1}, &kMerging, 256);
  const auto all = [&] {
    for (Index i = 0; i < pairs.count(); ++i) pairs[i];
  };
  EXPECT_THROW(all(), Error) << "the answer 12 has no token of its own";
}

TEST(Generators, WhatHasNoRoomIsRefused) {
  const auto refusal = [](const Generator& generator, const Tokenizer* tokenizer, Index vocab) {
    try {
      Probes(generator, tokenizer, vocab);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(
      refusal({Kind::recall, Symbols::text, {95}, {8}, {}, 1, 0}, &kBytes, 256).find("96 or more, not 95"),
      std::string::npos);
  EXPECT_EQ(refusal({Kind::recall, Symbols::text, {96}, {8}, {}, 1, 0}, &kBytes, 256), "");
  EXPECT_NE(
      refusal({Kind::recall, Symbols::ids, {400}, {8}, {}, 1, 0}, nullptr, 31).find("32 or more, not 31"),
      std::string::npos);
  EXPECT_NE(refusal({Kind::needle, Symbols::text, {100}, {}, {0}, 1, 0}, &kBytes, 256).find("128"),
            std::string::npos);
  EXPECT_NE(refusal({Kind::copying, Symbols::ids, {7}, {}, {}, 1, 0}, nullptr, 256).find("8 or more"),
            std::string::npos);
  EXPECT_NE(refusal({Kind::copying, Symbols::text, {9}, {}, {}, 1, 0}, nullptr, 256).find("no tokenizer"),
            std::string::npos);
}

// Every variant's number for every answer is the one of its own run, bit for bit.
TEST(Generators, ResultsEqualSoloRuns) {
  const auto model = testing::asked_model();
  const auto variants = testing::asked_variants();
  for (const Json& json :
       {Json{{"generator", "recall"}, {"length", 90}, {"pairs", 3}, {"items", 2}},
        Json{{"generator", "needle"},
             {"length", 150},
             {"depth", {0.2, 0.8}},
             {"items", 1},
             {"symbols", "ids"}},
        Json{{"generator", "induction"}, {"length", {16, 40}}, {"items", 1}, {"symbols", "ids"}}}) {
    const ablate::Task task = testing::task_of(json);
    const auto tokenizer = std::make_shared<ByteTokenizer>();
    const testing::AskedSamples asked = testing::ask(
        task, {model, tokenizer, testing::plans_of(*model, variants), {{}, std::size_t{1} << 26}});
    const Probes probes(std::get<Generator>(task.source), tokenizer.get(), 256);
    ASSERT_EQ(static_cast<Index>(asked.items.size()), probes.count());
    for (Index i = 0; i < probes.count(); ++i) {
      const Probe probe = probes[i];
      const auto& result = asked.items[static_cast<std::size_t>(i)];
      ASSERT_EQ(result.queries.size(), probe.queries.size());
      for (std::size_t v = 0; v < variants.size(); ++v) {
        std::vector<double> nll(probe.tokens.size());
        std::vector<bool> right(probe.tokens.size());
        std::vector<float> scratch(256);
        StreamOptions options;
        options.edits = variants[v];
        Stream stream(model, options);
        stream.feed(probe.tokens, [&](Index position, std::span<const float> row) {
          const auto next = static_cast<std::size_t>(position) + 1;
          if (next == nll.size()) return;
          const ablate::LogSoftmax softmax(row, scratch, {});
          nll[next] = softmax.nll(probe.tokens[next]);
          right[next] = softmax.greedy() == probe.tokens[next];
        });
        for (std::size_t q = 0; q < probe.queries.size(); ++q) {
          double sum = 0, hits = 0;
          for (auto t = static_cast<std::size_t>(probe.queries[q].begin);
               t < static_cast<std::size_t>(probe.queries[q].end); ++t) {
            sum += nll[t];
            hits += right[t];
          }
          const auto& outcome = result.queries[q].outcomes[v];
          const auto count = static_cast<double>(probe.queries[q].end - probe.queries[q].begin);
          EXPECT_EQ(outcome.nll, sum) << json.dump() << " item " << i << " variant " << v;
          EXPECT_EQ(outcome.acc, hits / count);
          EXPECT_EQ(outcome.correct, hits == count);
        }
      }
      EXPECT_EQ(result.queries[0].factors.distance, probe.queries[0].distance);
      EXPECT_EQ(result.queries[0].factors.length, probe.length);
    }
  }
}

}  // namespace
}  // namespace plait
