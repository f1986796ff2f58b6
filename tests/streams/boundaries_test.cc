// What a stream keeps of its past: rollbacks beyond the depth, snapshots that carry it, windows that bound
// the memory, and predictions of memory.
#include "runtime/run/boundaries.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/error.h"
#include "runtime/run/stream.h"
#include "runtime/run/windows.h"
#include "tests/files.h"
#include "tests/testing.h"
#include "weights/snapshot_file.h"

namespace plait {
namespace {

using testing::Numbers;
using testing::same_bits;
using testing::sentence;

// A window, a log that grows, a gated state and a convolution.
Json card() {
  return Json::parse(R"({
    "plait_format": 1, "name": "kept", "vocab": 61, "width": 32,
    "numerics": {"chunk": 16, "key_block": 64, "key_span": 64},
    "pattern": ["wide", "deep"],
    "blocks": {
      "wide": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "branches": {
        "attention": {"kind": "softmax_attention", "num_heads": 2, "head_dim": 16, "rope": {"theta": 10000},
                      "window": 30, "sinks": 2},
        "delta": {"kind": "gated_delta_net", "num_heads": 2, "head_dim": 16, "value_head_dim": 16}}}],
      "deep": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "softmax_attention", "num_heads": 2,
                "head_dim": 16}]
    },
    "final_norm": {"kind": "rms_norm"}, "head": {"tied": "embed"}})");
}

constexpr std::size_t kPlenty = 100'000'000;

class Kept : public ::testing::Test {
 protected:
  std::shared_ptr<const Model> model_ = testing::random_model(card(), 3);
  std::vector<Token> tokens_ = Numbers(5).tokens(2600, 61);

  std::span<const Token> first(Index n) const {
    return std::span(tokens_).first(static_cast<std::size_t>(n));
  }
  Stream at(Index position, StreamOptions options = {}) const {
    Stream stream(model_, std::move(options));
    stream.feed(first(position));
    return stream;
  }
  StreamOptions keeping(std::size_t bytes) const {
    StreamOptions options;
    options.keep = bytes;
    return options;
  }
};

std::vector<Index> positions(const Stream& stream) {
  std::vector<Index> all;
  for (const auto& boundary : stream.boundaries().all()) all.push_back(boundary->position);
  return all;
}

TEST_F(Kept, BoundariesLieAtMultiplesOfTheStrideWhateverTheSplit) {
  const Stream whole = at(2600, keeping(kPlenty));
  EXPECT_EQ(positions(whole), (std::vector<Index>{512, 1024, 1536, 2048, 2560}));
  Stream pieces(model_, keeping(kPlenty));
  for (std::size_t at = 0; at < tokens_.size(); at += 173)
    pieces.feed(std::span(tokens_).subspan(at, std::min<std::size_t>(173, tokens_.size() - at)));
  EXPECT_EQ(positions(pieces), positions(whole));
  EXPECT_EQ(pieces.state_digest(), at(2600).state_digest()) << "keeping changes no bit";
  EXPECT_TRUE(same_bits(pieces.logits(), at(2600).logits()));
}

TEST_F(Kept, ABudgetDoublesTheStride) {
  const std::size_t one = at(512, keeping(kPlenty)).boundaries().bytes();
  ASSERT_GT(one, 0u);
  const Stream stream = at(2600, keeping(one * 5 / 2));
  EXPECT_EQ(stream.boundaries().stride(), 1024);
  EXPECT_EQ(positions(stream), (std::vector<Index>{1024, 2048}));
  EXPECT_LE(stream.boundaries().bytes(), one * 5 / 2);
  EXPECT_TRUE(positions(at(2600, keeping(1))).empty()) << "nothing fits, nothing is kept";
  EXPECT_TRUE(positions(at(2600)).empty());
}

TEST_F(Kept, ARollbackBeyondTheDepthReplaysFromTheNearestBoundary) {
  for (const Index back : {30, 100, 600, 1064, 2200}) {
    Stream stream = at(2600, keeping(kPlenty));
    const Index target = 2600 - back;
    const Stream::RollbackCost cost = stream.can_rollback(back);
    EXPECT_TRUE(cost.possible);
    EXPECT_EQ(cost.replayed, target % 512);
    stream.rollback(back);
    Stream direct = at(target);
    EXPECT_EQ(stream.position(), target);
    EXPECT_EQ(stream.state_digest(), direct.state_digest()) << back;
    for (const Index boundary : positions(stream)) EXPECT_LE(boundary, target);
    EXPECT_TRUE(stream.logits().empty());
    EXPECT_TRUE(same_bits(stream.feed({7, 8}), direct.feed({7, 8}))) << back;
  }
}

TEST_F(Kept, WithinTheDepthNothingIsReplayed) {
  StreamOptions options = keeping(kPlenty);
  options.rollback_depth = 40;
  Stream stream = at(1040, options);
  EXPECT_EQ(stream.can_rollback(40).replayed, 0);
  EXPECT_EQ(stream.can_rollback(300).replayed, 740 - 512);
  stream.rollback(40);
  EXPECT_EQ(stream.state_digest(), at(1000).state_digest());
  EXPECT_EQ(positions(stream), std::vector<Index>{512});
}

TEST_F(Kept, PhasesSurviveAReplayFromABoundary) {
  Edit decode;
  decode.node = "blocks.0.mixer";
  decode.phase = Phase::decode;
  StreamOptions options = keeping(kPlenty);
  options.edits = {decode};
  Stream stream(model_, options), direct(model_, options);
  for (Stream* s : {&stream, &direct}) {
    s->feed(first(500));
    s->feed(std::span(tokens_).subspan(500, 200), Origin::sampled);
  }
  stream.feed(std::span(tokens_).subspan(700, 300));
  EXPECT_EQ(stream.can_rollback(300).replayed, 700 - 512);
  stream.rollback(300);
  EXPECT_EQ(stream.state_digest(), direct.state_digest());
}

TEST_F(Kept, AForkKeepsItsOwn) {
  Stream stream = at(1100, keeping(kPlenty));
  Stream fork = stream.fork();
  fork.rollback(700);
  EXPECT_EQ(positions(stream), (std::vector<Index>{512, 1024}));
  EXPECT_TRUE(positions(fork).empty());
  stream.rollback(80);
  EXPECT_EQ(stream.state_digest(), at(1020).state_digest());
}

TEST_F(Kept, ASnapshotFileCarriesTheBoundaries) {
  const testing::Folder folder;
  Stream stream = at(1700, keeping(kPlenty));
  save_snapshot(folder / "s.h5", stream.snapshot());
  Stream again = Stream::restore(model_, load_snapshot(folder / "s.h5"), keeping(kPlenty));
  EXPECT_EQ(positions(again), positions(stream));
  for (const Index back : {164, 600}) {
    EXPECT_EQ(again.can_rollback(back).replayed, stream.can_rollback(back).replayed);
    Stream a = again.fork();
    a.rollback(back);
    EXPECT_EQ(a.state_digest(), at(1700 - back).state_digest()) << back;
    Stream direct = at(1700 - back);
    EXPECT_TRUE(same_bits(a.feed({3}), direct.feed({3}))) << back;
  }
  EXPECT_TRUE(positions(Stream::restore(model_, load_snapshot(folder / "s.h5"))).empty())
      << "without a budget nothing is kept";
}

TEST_F(Kept, ABoundaryInASnapshotHoldsNoRowsOfGrowingLogs) {
  const Snapshot few = at(600, keeping(kPlenty)).snapshot(), many = at(2100, keeping(kPlenty)).snapshot();
  const auto bytes = [](const Snapshot::Boundary& boundary) {
    std::size_t total = 0;
    for (const auto& node : boundary.states)
      for (const auto& item : node.image.items) {
        total += item.bytes.size();
        for (const auto& piece : item.pieces) total += piece.rows.size();
      }
    return total;
  };
  EXPECT_EQ(bytes(few.boundaries.front()), bytes(many.boundaries.back()));
}

TEST_F(Kept, DamagedBoundariesAreRefusedWithAReason) {
  const Snapshot good = at(1200, keeping(kPlenty)).snapshot();
  ASSERT_EQ(good.boundaries.size(), 2u);
  const auto refused = [&](auto damage, const char* part) {
    Snapshot bad = good;
    damage(bad);
    const std::string text = sentence([&] { Stream::restore(model_, bad, keeping(kPlenty)); });
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  refused([](Snapshot& s) { s.stride = 100; }, "no multiple");
  refused([](Snapshot& s) { s.stride = -512; }, "no multiple");
  refused([](Snapshot& s) { s.stride = Index{1} << 62; }, "no multiple");
  refused([](Snapshot& s) { s.boundaries[1].position = 4096; }, "boundary at 4096");
  refused([](Snapshot& s) { std::swap(s.boundaries[0], s.boundaries[1]); }, "boundary at 512");
  refused([](Snapshot& s) { s.boundaries[0].states.pop_back(); }, "no state of node");
  refused(
      [](Snapshot& s) {
        for (auto& node : s.boundaries[1].states)
          for (auto& item : node.image.items)
            if (item.log_end == 1024 && item.pieces.empty()) item.present = {{0, 1024}}, item.log_end = 1024;
        for (auto& node : s.states)
          for (auto& item : node.image.items)
            if (!item.present.empty()) item.present.front().begin = 600;
      },
      "does not have");
}

TEST_F(Kept, ResendingTheSameTokensRunsNothing) {
  const testing::Folder folder;
  save_snapshot(folder / "s.h5", at(700).snapshot());
  Stream stream = Stream::restore(model_, load_snapshot(folder / "s.h5"));
  const Stream::Resent same = stream.resend(first(700));
  EXPECT_EQ(same.run, 0);
  EXPECT_EQ(same.shared, 700);
  EXPECT_TRUE(same_bits(stream.logits(), at(700).logits()));

  Stream longer = at(700, keeping(kPlenty));
  EXPECT_EQ(longer.resend(first(760)).run, 60);
  EXPECT_TRUE(same_bits(longer.logits(), at(760).logits()));

  const Stream::Resent shorter = longer.resend(first(600));
  EXPECT_EQ(shorter.shared, 599);
  EXPECT_EQ(shorter.run, 600 - 512);
  EXPECT_TRUE(same_bits(longer.logits(), at(600).logits()));
  EXPECT_EQ(longer.state_digest(), at(600).state_digest());

  std::vector<Token> other(tokens_.begin(), tokens_.begin() + 650);
  other[580] = (other[580] + 1) % 61;
  EXPECT_EQ(longer.resend(other).shared, 580);
  Stream direct(model_);
  direct.feed(other);
  EXPECT_TRUE(same_bits(longer.logits(), direct.logits()));
  EXPECT_FALSE(sentence([&] { longer.resend({}); }).empty());
}

TEST_F(Kept, SampledTokensCountAsGivenOnlyWherePhasesDoNotMatter) {
  Edit decode;
  decode.node = "blocks.0.mixer";
  decode.phase = Phase::decode;
  for (const bool matters : {false, true}) {
    StreamOptions options;
    if (matters) options.edits = {decode};
    Stream stream(model_, options), given(model_, options);
    stream.feed(first(40));
    stream.feed(std::span(tokens_).subspan(40, 20), Origin::sampled);
    const Stream::Resent resent = stream.resend(first(60));
    EXPECT_EQ(resent.shared, matters ? 40 : 60);
    EXPECT_TRUE(same_bits(stream.logits(), given.feed(first(60))));
  }
}

// Streams that keep their last tokens only.

TEST_F(Kept, AShortHistoryChangesNoBitAndIsConstant) {
  StreamOptions options;
  options.history = 100;
  Stream stream(model_, options);
  for (std::size_t at = 0; at < tokens_.size(); at += 173) {
    stream.feed(std::span(tokens_).subspan(at, std::min<std::size_t>(173, tokens_.size() - at)));
    const Index begin = stream.history().begin();
    EXPECT_EQ(begin, History::kept_from(stream.position() - 100));
    EXPECT_TRUE(std::equal(stream.tokens().begin(), stream.tokens().end(), tokens_.begin() + begin));
  }
  EXPECT_LE(stream.history().bytes(), (100 + History::kBlock) * sizeof(Token));
  const Stream whole = at(2600);
  EXPECT_EQ(stream.state_digest(), whole.state_digest());
  EXPECT_TRUE(same_bits(stream.logits(), whole.logits()));
  EXPECT_TRUE(stream.history().agrees_with(whole.history()));
  EXPECT_TRUE(whole.history().agrees_with(stream.history()));
}

TEST_F(Kept, WithoutItsTokensARollbackIsRefused) {
  StreamOptions options;
  options.history = 0;
  options.rollback_depth = 40;
  Stream stream = at(1040, options);
  EXPECT_TRUE(stream.can_rollback(40).possible);
  EXPECT_FALSE(stream.can_rollback(300).possible);
  EXPECT_NE(sentence([&] { stream.rollback(300); }).find("keeps none before"), std::string::npos);
  stream.rollback(40);
  EXPECT_EQ(stream.state_digest(), at(1000).state_digest());
}

TEST_F(Kept, TokensForReplayCountInTheBudget) {
  const std::size_t one = at(512, keeping(kPlenty)).boundaries().bytes();
  for (const std::size_t budget : {one * 3, one + 4 * 1200}) {
    StreamOptions options = keeping(budget);
    options.history = 0;
    Stream stream(model_, options);
    for (std::size_t at = 0; at < tokens_.size(); at += 100) {
      stream.feed(std::span(tokens_).subspan(at, std::min<std::size_t>(100, tokens_.size() - at)));
      const auto since_boundary = static_cast<std::size_t>(stream.boundaries().stride() + History::kBlock);
      EXPECT_LE(stream.boundaries().bytes() + stream.history().bytes(),
                budget + since_boundary * sizeof(Token));
    }
    Index first = 0;
    while (first < 2600 && !stream.can_rollback(2600 - first).possible) ++first;
    for (const Index target : {first, first + 100}) {
      if (target > 2600) continue;
      Stream back = stream.fork();
      back.rollback(2600 - target);
      EXPECT_EQ(back.state_digest(), at(target).state_digest()) << target;
    }
  }
}

TEST_F(Kept, ASnapshotOfAShortHistoryIsKnownByItsDigest) {
  const testing::Folder folder;
  StreamOptions options;
  options.history = 50;
  save_snapshot(folder / "s.h5", at(1700, options).snapshot());
  const Snapshot snapshot = load_snapshot(folder / "s.h5");
  EXPECT_EQ(snapshot.forgotten, 1536);
  EXPECT_EQ(snapshot.position(), 1700);
  Stream stream = Stream::restore(model_, snapshot);
  EXPECT_EQ(stream.position(), 1700);
  EXPECT_EQ(stream.resend(first(1700)).run, 0);
  const Stream::Resent longer = stream.fork().resend(first(1760));
  EXPECT_EQ(longer.run, 60);
  std::vector<Token> other = tokens_;
  other[7] = (other[7] + 1) % 61;
  EXPECT_EQ(stream.resend(other).run, 2600) << "another text: from its begin";
  Stream direct(model_);
  EXPECT_TRUE(same_bits(stream.logits(), direct.feed(other)));
}

// Windows as an intervention.

TEST_F(Kept, AWindowBoundsTheMemoryAndChangesNoBitOfWhatItShows) {
  StreamOptions trimmed, held;
  trimmed.edits = window_edits(*model_, 50, 3);
  ASSERT_EQ(trimmed.edits.size(), 2u) << "both attention layers, not the recurrent one";
  held.edits = trimmed.edits;
  for (Edit& edit : held.edits) edit.end = Index{1} << 40;  // the same rows; the logs keep everything
  Stream a(model_, trimmed), b(model_, held);
  a.feed(first(1000));
  b.feed(first(1000));
  EXPECT_TRUE(same_bits(a.logits(), b.logits()));
  EXPECT_FALSE(same_bits(a.logits(), at(1000).logits()));
  const std::size_t bytes = a.state_bytes();
  EXPECT_LT(bytes, b.state_bytes());
  for (int i = 0; i < 3; ++i) {
    a.feed(first(512));
    EXPECT_EQ(a.state_bytes() / 1000, bytes / 1000) << "constant";
  }
  Stream pieces(model_, trimmed);
  for (std::size_t at = 0; at < 1000; at += 37)
    pieces.feed(std::span(tokens_).subspan(at, std::min<std::size_t>(37, 1000 - at)));
  EXPECT_TRUE(same_bits(pieces.logits(), b.logits()));
  const Snapshot snapshot = pieces.snapshot();
  Stream restored = Stream::restore(model_, snapshot, trimmed);
  EXPECT_TRUE(same_bits(restored.feed({4, 5}), b.feed({4, 5})));
  EXPECT_NE(sentence([&] { Stream::restore(model_, snapshot); }).find("edits"), std::string::npos);
}

// Whatever a kind keeps per token, forgetting what the window hides must change nothing.
TEST(Windows, EveryKindThatTakesOneGivesTheSameBitsWithShortLogs) {
  const std::vector<Token> tokens = Numbers(2).tokens(330, 97);
  int tried = 0;
  for (const auto& [key, kind] : Registry::builtin().kinds())
    for (const std::string& settings : kind.examples) {
      const auto model = testing::random_model(testing::card_of_kind(key, Json::parse(settings)), 7);
      StreamOptions trimmed, held;
      try {
        trimmed.edits = window_edits(*model, 40, 2);
      } catch (const Error&) {
        continue;
      }
      if (trimmed.edits.empty()) continue;
      held.edits = trimmed.edits;
      for (Edit& edit : held.edits) edit.end = Index{1} << 40;
      Stream a(model, trimmed), b(model, held);
      const std::vector<float> short_logs = testing::all_logits(a, tokens, {100, 1, 64}),
                               long_logs = testing::all_logits(b, tokens, {330});
      EXPECT_TRUE(same_bits(short_logs, long_logs)) << key << " " << settings;
      ++tried;
    }
  EXPECT_GT(tried, 10);
}

TEST_F(Kept, AWindowThatIsNoneIsRefused) {
  EXPECT_NE(sentence([&] { window_edits(*model_, 0, 0); }).find("window"), std::string::npos);
  EXPECT_NE(sentence([&] { window_edits(*model_, 5, -1); }).find("sinks"), std::string::npos);
}

// Positions beyond 2^31: states that begin there, as after a long stream whose windows have passed.

std::vector<float> far_logits(const Model& model, Index from, std::span<const Token> tokens, Index split) {
  Sequence sequence(model);
  sequence.position = from;
  for (State& state : sequence.states) {
    state.set_position(from);
    if (!state.fields().empty()) state.reset_before(from, State::Logs::hide);
  }
  std::vector<float> all;
  for (std::size_t at = 0; at < tokens.size(); at += static_cast<std::size_t>(split)) {
    const Item item{&sequence,
                    tokens.subspan(at, std::min(static_cast<std::size_t>(split), tokens.size() - at)),
                    Want::all};
    run_batch(model, {&item, 1}, {}, [&](std::size_t, Index, std::span<const float> row) {
      all.insert(all.end(), row.begin(), row.end());
    });
  }
  return all;
}

TEST_F(Kept, PositionsBeyondTwoToThe31AreExact) {
  Json without_sinks = card();
  without_sinks["blocks"]["wide"][0]["branches"]["attention"].erase("sinks");
  const auto model = testing::random_model(without_sinks, 3);
  const auto tokens = first(150);
  const Index far = (Index{1} << 31) - 64, further = Index{1} << 40;  // multiples of every grid
  const std::vector<float> near = far_logits(*model, 0, tokens, 150);
  for (const Index from : {far, further}) {
    const std::vector<float> whole = far_logits(*model, from, tokens, 150);
    EXPECT_TRUE(same_bits(whole, far_logits(*model, from, tokens, 1)));
    EXPECT_TRUE(same_bits(whole, far_logits(*model, from, tokens, 37)));
    // Only rotary angles see the position, and scores only their differences. An angle p * theta of double
    // precision is off by p * 2^-53; at 2^40 that is 1e-4 radians, which scales the scores' error.
    double largest = 0, error = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(near[i])));
      error = std::max(error, std::abs(static_cast<double>(near[i]) - whole[i]));
    }
    const double angle = std::ldexp(static_cast<double>(from), -53);
    EXPECT_LT(error / largest, 16 * angle + 64 * std::ldexp(1.0, -24)) << from;
  }
}

// Memory by arithmetic.

TEST_F(Kept, MemoryIsPredictedExactly) {
  for (const Index depth : {0, 5, 40})
    for (const bool windowed : {false, true}) {
      StreamOptions options;
      options.rollback_depth = depth;
      if (windowed) options.edits = window_edits(*model_, 70, 5);
      Stream stream(model_, options);
      for (const Index step : {0, 1, 15, 1, 47, 64, 100, 300, 512, 7}) {
        stream.feed(std::span(tokens_).subspan(static_cast<std::size_t>(stream.position()),
                                               static_cast<std::size_t>(step)));
        std::size_t predicted = 0;
        for (const State& state : stream.sequence().states)
          predicted += State::predicted_bytes(state.fields(), stream.position(), depth);
        EXPECT_EQ(predicted, stream.state_bytes()) << stream.position() << " depth " << depth;
      }
    }
}

}  // namespace
}  // namespace plait
