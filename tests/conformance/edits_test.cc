// Every kind under every edit it declares: equal bits for any split, packing, thread count, instruction set,
// fork, rollback, save and restore; and a sentence for every edit it does not know.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tests/testing.h"
#include "tests/typical_edit.h"

namespace plait {
namespace {

using testing::all_logits;
using testing::Numbers;
using testing::same_bits;

constexpr Index kTokens = 110, kBegin = 21, kEnd = 90;  // the range begins and ends inside chunks

struct Case {
  std::string kind, settings;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [key, kind] : Registry::builtin().kinds())
    for (const std::string& settings : kind.examples)
      if (kind.graphs != Kind::Graphs::encoder) all.push_back({key, settings});
  return all;
}

std::string name_of_case(const ::testing::TestParamInfo<Case>& info) {
  return info.param.kind + "_" + std::to_string(info.index);
}

class Edited : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    model_ =
        testing::random_model(testing::card_of_kind(GetParam().kind, Json::parse(GetParam().settings)), 7);
    tokens_ = Numbers(11).tokens(kTokens, model_->card().vocab);
    for (int n = 0; n < model_->node_count(); ++n)
      if (model_->graph().nodes[static_cast<std::size_t>(n)].kind == GetParam().kind) node_ = n;
    ASSERT_GE(node_, 0);
    name_ = model_->graph().nodes[static_cast<std::size_t>(node_)].name;
    edits_ = testing::typical_edits(name_, model_->layer(node_), kBegin, kEnd);
  }

  Stream stream(const Edit& edit, Index depth = 0,
                Compute compute = {Numerics::exact, Isa::automatic, 1}) const {
    StreamOptions options;
    options.compute = compute;
    options.edits = {edit};
    options.rollback_depth = depth;
    return Stream(model_, options);
  }
  std::span<const Token> from(Index begin) const {
    return std::span(tokens_).subspan(static_cast<std::size_t>(begin));
  }
  std::span<const float> rows(const std::vector<float>& all, Index begin) const {
    return std::span(all).subspan(static_cast<std::size_t>(begin * model_->card().vocab));
  }

  std::shared_ptr<const Model> model_;
  int node_ = -1;
  std::string name_;
  std::vector<Token> tokens_;
  std::vector<Edit> edits_;
};

TEST_P(Edited, AnySplitAndThreadCount) {
  Stream plain(model_, {});
  const std::vector<float> clean = all_logits(plain, tokens_, {kTokens});
  for (const Edit& edit : edits_) {
    SCOPED_TRACE(testing::describe(edit));
    Stream whole = stream(edit);
    const std::vector<float> logits = all_logits(whole, tokens_, {kTokens});
    for (float x : logits) ASSERT_TRUE(std::isfinite(x));
    const std::size_t before = static_cast<std::size_t>(kBegin * model_->card().vocab);
    EXPECT_TRUE(same_bits(std::span(logits).first(before), std::span(clean).first(before)));
    for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {30, 7}, {64}}) {
      Stream other = stream(edit);
      EXPECT_TRUE(same_bits(all_logits(other, tokens_, split), logits)) << "split " << split[0];
      EXPECT_EQ(other.state_digest(), whole.state_digest()) << "split " << split[0];
    }
    Stream threads = stream(edit, 0, {Numerics::exact, Isa::automatic, 3});
    EXPECT_TRUE(same_bits(all_logits(threads, tokens_, {kTokens}), logits)) << "3 threads";
    Stream portable = stream(edit, 0, {Numerics::exact, Isa::portable, 1});
    EXPECT_TRUE(same_bits(all_logits(portable, tokens_, {kTokens}), logits)) << "portable";
  }
}

// Variants of one text, edited and not, in one batch.
TEST_P(Edited, AnyPacking) {
  std::vector<Stream> streams = {Stream(model_, {})};
  std::vector<std::vector<float>> solo;
  for (const Edit& edit : edits_) streams.push_back(stream(edit));
  for (const Stream& s : streams) {
    Stream own = s.fork();
    solo.push_back(all_logits(own, tokens_, {kTokens}));
  }
  std::vector<std::vector<float>> logits(streams.size());
  for (Index done = 0; done < kTokens; done += 55) {
    std::vector<Item> items;
    for (Stream& s : streams)
      items.push_back({&s.sequence(), from(done).first(55), Want::all, Origin::given});
    run_batch(*model_, items, {{Numerics::exact, Isa::automatic, 2}, 100, {}},
              [&](std::size_t item, Index, std::span<const float> row) {
                logits[item].insert(logits[item].end(), row.begin(), row.end());
              });
  }
  for (std::size_t i = 0; i < streams.size(); ++i)
    EXPECT_TRUE(same_bits(logits[i], solo[i])) << (i == 0 ? "plain" : testing::describe(edits_[i - 1]));
}

TEST_P(Edited, ForkRollbackSaveAndLoad) {
  for (const Edit& edit : edits_) {
    SCOPED_TRACE(testing::describe(edit));
    Stream whole = stream(edit);
    const std::vector<float> logits = all_logits(whole, tokens_, {kTokens});
    for (const Index at : {40, 64}) {
      Stream s = stream(edit, 20);
      s.feed(std::span(tokens_).first(static_cast<std::size_t>(at)));
      Stream fork = s.fork();
      fork.feed(Numbers(13).tokens(30, model_->card().vocab));
      Stream restored = Stream::restore(model_, s.snapshot(), [&] {
        StreamOptions options;
        options.compute = {Numerics::exact, Isa::automatic, 1};
        options.edits = {edit};
        return options;
      }());
      EXPECT_TRUE(same_bits(all_logits(restored, from(at), {9}), rows(logits, at))) << "restored at " << at;
      fork = s.fork();
      fork.feed(Numbers(14).tokens(15, model_->card().vocab));
      fork.rollback(18);
      EXPECT_TRUE(same_bits(all_logits(fork, from(at - 3), {11}), rows(logits, at - 3)))
          << "rolled back to " << at - 3;
      EXPECT_TRUE(same_bits(all_logits(s, from(at), {kTokens}), rows(logits, at))) << "original of " << at;
    }
  }
}

// What a kind does not declare is refused by name, before anything runs. (The residual is no place in a
// layer.)
TEST_P(Edited, RefusesWhatItDoesNotKnow) {
  const Layer& layer = model_->layer(node_);
  for (int s = 1; s < static_cast<int>(Site::residual); ++s)
    for (int o = 0; o <= static_cast<int>(Operator::stale); ++o) {
      Edit edit;
      edit.node = name_;
      edit.site = static_cast<Site>(s);
      edit.op = static_cast<Operator>(o);
      const bool executors =
          edit.site == Site::state &&
          (edit.op == Operator::reset || edit.op == Operator::reset_every || edit.op == Operator::swap);
      const bool known = std::any_of(layer.sites().begin(), layer.sites().end(), [&](const SiteSpec& spec) {
        return spec.site == edit.site &&
               std::count(spec.operators.begin(), spec.operators.end(), edit.op) > 0;
      });
      if (known || executors) continue;
      try {
        stream(edit);
        ADD_FAILURE() << name_of(edit.site) << "/" << name_of(edit.op) << " was accepted";
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(name_), std::string::npos) << error.what();
        EXPECT_NE(std::string(error.what()).find(name_of(edit.site)), std::string::npos) << error.what();
      }
    }
}

// Every typical edit passes the check of its site; heads and values the site has not do not.
TEST_P(Edited, ChecksHeadsAndValues) {
  const auto spec_of = [&](const Edit& edit) {
    const auto sites = model_->layer(node_).sites();
    return *std::find_if(sites.begin(), sites.end(), [&](const SiteSpec& s) { return s.site == edit.site; });
  };
  for (Edit edit : edits_) {
    SCOPED_TRACE(testing::describe(edit));
    const SiteSpec spec = spec_of(edit);
    EXPECT_NO_THROW(check(edit, spec));
    edit.heads = {spec.heads};
    EXPECT_THROW(check(edit, spec), Error);
    EXPECT_THROW(stream(edit), Error);  // the plan checks
    edit.heads = {};
    if (edit.every != Every::unset) {
      edit.every = Every::unset;
      EXPECT_THROW(check(edit, spec), Error);
    }
    if (edit.op == Operator::mean || edit.op == Operator::resample) {
      // One value less; instead of a single one two, because without any the edit has its `value`.
      edit.values.resize(edit.values.size() > 1 ? edit.values.size() - 1 : 2);
      EXPECT_THROW(check(edit, spec), Error);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Edited, ::testing::ValuesIn(cases()), name_of_case);

}  // namespace
}  // namespace plait
