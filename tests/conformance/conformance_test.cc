// Every kind of the registry, in every one of its example settings, keeps the promise of one arithmetic:
// equal bits for any split, packing, thread count, fork, rollback, save and restore, and in exact mode any
// instruction set.
#include <gtest/gtest.h>

#include <map>

#include "runtime/kernels/kernels.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::all_logits;
using testing::Numbers;
using testing::same_bits;

// Past the chunk (32), the key block (64), the test's key span (128) and a second pass over its chunks.
constexpr Index kTokens = 150;

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

std::string name_of_case(const ::testing::TestParamInfo<std::tuple<Case, Numerics>>& info) {
  return std::get<0>(info.param).kind + "_" + std::to_string(info.index) + "_" +
         name_of(std::get<1>(info.param));
}

class Conformance : public ::testing::TestWithParam<std::tuple<Case, Numerics>> {
 protected:
  void SetUp() override {
    const auto& [c, numerics] = GetParam();
    // fast differs from exact only where weights are bf16.
    model_ = testing::random_model(testing::card_of_kind(c.kind, Json::parse(c.settings)), 7,
                                   numerics == Numerics::fast ? DType::bf16 : DType::f32);
    options_.compute = {numerics, Isa::automatic, 1};
    tokens_ = Numbers(11).tokens(kTokens, model_->card().vocab);
    Stream stream(model_, options_);
    whole_ = all_logits(stream, tokens_, {kTokens});
    state_ = stream.state_digest();
    for (float x : whole_) ASSERT_TRUE(x == x) << "not a number in the logits";
  }

  std::span<const float> rows(Index first, Index count) const {
    return std::span(whole_).subspan(static_cast<std::size_t>(first * model_->card().vocab),
                                     static_cast<std::size_t>(count * model_->card().vocab));
  }

  std::shared_ptr<const Model> model_;
  StreamOptions options_;
  std::vector<Token> tokens_;
  std::vector<float> whole_;
  std::string state_;
};

// Bits may depend on the instruction set in fast mode, so this promise is of exact mode only.
class ExactConformance : public Conformance {};

TEST_P(Conformance, AnySplit) {
  for (const std::vector<Index>& split :
       std::vector<std::vector<Index>>{{1}, {7}, {64, 1, 21}, {31, 2}, {33}}) {
    Stream stream(model_, options_);
    EXPECT_TRUE(same_bits(all_logits(stream, tokens_, split), whole_)) << "split " << split[0];
    EXPECT_EQ(stream.state_digest(), state_) << "split " << split[0];
  }
}

TEST_P(Conformance, AnyPacking) {
  // Three sequences of different lengths and starts share each walk; each must match its solo run.
  const std::vector<Token> other = Numbers(12).tokens(kTokens, model_->card().vocab);
  Stream solo_stream(model_, options_);
  const std::vector<float> solo = all_logits(solo_stream, other, {kTokens});
  std::vector<Stream> streams(3, Stream(model_, options_));
  streams[1].feed(std::span(tokens_).first(37));
  const std::vector<std::span<const Token>> texts = {tokens_, tokens_, other};
  std::vector<std::vector<float>> logits(3);
  const std::vector<Index> steps = {5, 1, 40};
  for (bool more = true; more;) {
    more = false;
    std::vector<Item> items;
    std::vector<std::size_t> owner;
    for (std::size_t i = 0; i < 3; ++i) {
      const auto done = static_cast<std::size_t>(streams[i].sequence().position);
      const auto count = std::min(static_cast<std::size_t>(steps[i]), texts[i].size() - done);
      if (count == 0) continue;
      items.push_back({&streams[i].sequence(), texts[i].subspan(done, count), Want::all, Origin::given});
      owner.push_back(i);
      more = true;
    }
    run_batch(*model_, items, {options_.compute, 13, {}},
              [&](std::size_t item, Index, std::span<const float> row) {
                auto& all = logits[owner[item]];
                all.insert(all.end(), row.begin(), row.end());
              });
  }
  EXPECT_TRUE(same_bits(logits[0], whole_));
  EXPECT_TRUE(same_bits(logits[1], rows(37, kTokens - 37)));
  EXPECT_TRUE(same_bits(logits[2], solo));
}

TEST_P(Conformance, AnyThreadCount) {
  for (int threads : {2, 3}) {
    StreamOptions options = options_;
    options.compute.threads = threads;
    Stream stream(model_, options);
    EXPECT_TRUE(same_bits(all_logits(stream, tokens_, {kTokens}), whole_)) << threads << " threads";
    EXPECT_EQ(stream.state_digest(), state_) << threads << " threads";
  }
}

TEST_P(ExactConformance, AnyInstructionSet) {
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    if (!machine_has(isa)) continue;
    StreamOptions options = options_;
    options.compute.isa = isa;
    Stream stream(model_, options);
    EXPECT_TRUE(same_bits(all_logits(stream, tokens_, {kTokens}), whole_)) << name_of(isa);
    EXPECT_EQ(stream.state_digest(), state_) << name_of(isa);
  }
}

TEST_P(Conformance, Fork) {
  for (Index at : {1, 31, 32, 70, 129}) {
    Stream stream(model_, options_);
    stream.feed(std::span(tokens_).first(static_cast<std::size_t>(at)));
    Stream fork = stream.fork();
    const std::string before = stream.state_digest();
    fork.feed(Numbers(13).tokens(45, model_->card().vocab));  // must not touch the original
    EXPECT_EQ(stream.state_digest(), before) << "fork at " << at;
    Stream second = stream.fork();
    const auto rest = std::span(tokens_).subspan(static_cast<std::size_t>(at));
    EXPECT_TRUE(same_bits(all_logits(second, rest, {9}), rows(at, kTokens - at))) << "fork at " << at;
    EXPECT_TRUE(same_bits(all_logits(stream, rest, {kTokens}), rows(at, kTokens - at)))
        << "original of " << at;
  }
}

TEST_P(Conformance, RollbackWithinItsDepthRunsNothing) {
  StreamOptions options = options_;
  options.rollback_depth = 40;
  for (Index back : {1, 5, 31, 33, 40}) {
    for (Index at : {41, 64, 71, 97, 130}) {
      Stream stream(model_, options);
      stream.feed(std::span(tokens_).first(static_cast<std::size_t>(at - 3)));
      stream.feed(std::span(tokens_).subspan(static_cast<std::size_t>(at - 3), 3));
      ASSERT_TRUE(stream.can_rollback(back).possible);
      EXPECT_EQ(stream.can_rollback(back).replayed, 0) << back << " of " << at;
      stream.rollback(back);
      EXPECT_TRUE(stream.logits().empty());
      Stream fresh(model_, options_);
      fresh.feed(std::span(tokens_).first(static_cast<std::size_t>(at - back)));
      EXPECT_EQ(stream.state_digest(), fresh.state_digest()) << back << " of " << at;
      const Index first = at - back;
      EXPECT_TRUE(
          same_bits(all_logits(stream, std::span(tokens_).subspan(static_cast<std::size_t>(first)), {17}),
                    rows(first, kTokens - first)))
          << back << " of " << at;
    }
  }
}

TEST_P(Conformance, RollbackBeyondItsDepthReplays) {
  Stream stream(model_, options_);
  stream.feed(tokens_);
  stream.rollback(101);
  EXPECT_EQ(stream.position(), kTokens - 101);
  EXPECT_TRUE(same_bits(all_logits(stream, std::span(tokens_).subspan(kTokens - 101), {50}),
                        rows(kTokens - 101, 101)));
}

TEST_P(Conformance, SnapshotRestores) {
  for (Index at : {1, 32, 50, 64, 131}) {
    Stream stream(model_, options_);
    stream.feed(std::span(tokens_).first(static_cast<std::size_t>(at)));
    Stream restored = Stream::restore(model_, stream.snapshot(), options_);
    EXPECT_EQ(restored.state_digest(), stream.state_digest()) << "at " << at;
    EXPECT_TRUE(same_bits(restored.logits(), stream.logits()));
    EXPECT_TRUE(
        same_bits(all_logits(restored, std::span(tokens_).subspan(static_cast<std::size_t>(at)), {11, 40}),
                  rows(at, kTokens - at)))
        << "at " << at;
  }
}

// A hole in the state (skipped rows) and a reset do not depend on the split either.
TEST_P(Conformance, EditsThatTouchTheStateOverAnySplit) {
  EditList edits;
  Edit skip;
  skip.node = "blocks.0";
  skip.op = Operator::skip;
  skip.begin = 20;
  skip.end = 75;
  edits.push_back(skip);
  const int mixer = model_->graph().find("blocks.0.mixer");
  if (!model_->layer(mixer).fields().empty()) {
    Edit reset;
    reset.node = "blocks.0.mixer";
    reset.site = Site::state;
    reset.op = Operator::reset;
    reset.begin = 107;
    reset.reset_conv = true;
    edits.push_back(reset);
  }
  StreamOptions options = options_;
  options.edits = edits;
  Stream stream(model_, options);
  const std::vector<float> edited = all_logits(stream, tokens_, {kTokens});
  EXPECT_FALSE(same_bits(edited, whole_));
  EXPECT_TRUE(same_bits(std::span(edited).first(rows(0, 20).size()), rows(0, 20)));
  for (float x : edited) ASSERT_TRUE(x == x) << "not a number under edits";
  for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {30, 7}, {64}}) {
    Stream other(model_, options);
    EXPECT_TRUE(same_bits(all_logits(other, tokens_, split), edited)) << "split " << split[0];
    EXPECT_EQ(other.state_digest(), stream.state_digest()) << "split " << split[0];
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Conformance,
                         ::testing::Combine(::testing::ValuesIn(cases()),
                                            ::testing::Values(Numerics::exact, Numerics::fast)),
                         name_of_case);

INSTANTIATE_TEST_SUITE_P(Kinds, ExactConformance,
                         ::testing::Combine(::testing::ValuesIn(cases()), ::testing::Values(Numerics::exact)),
                         name_of_case);

}  // namespace
}  // namespace plait
