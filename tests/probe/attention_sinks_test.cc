#include "tools/probe/attention_sinks.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing.h"

namespace plait::probe {
namespace {

constexpr Index kTokens = 24, kSkip = 4, kWidth = 6;

// Rows give `share` to `sink` where they see it, the rest evenly to the other keys.
std::vector<double> map_with_sink(Index sink, double share) {
  std::vector<double> a(static_cast<std::size_t>(kTokens * kTokens));
  for (Index i = 0; i < kTokens; ++i)
    for (Index j = 0; j <= i; ++j) {
      const auto keys = static_cast<double>(i + 1);
      a[static_cast<std::size_t>(i * kTokens + j)] = i < sink || i == 0 ? 1 / keys
                                                     : j == sink        ? share
                                                                        : (1 - share) / (keys - 1);
    }
  return a;
}

std::vector<double> random_rows(Index sink, double factor) {
  testing::Numbers numbers(9);
  std::vector<double> rows;
  for (Index i = 0; i < kTokens * kWidth; ++i)
    rows.push_back(numbers.normal() * (i / kWidth == sink ? factor : 1));
  return rows;
}

SinkStatistics statistics(Index sink, double share, double factor) {
  const auto rows = random_rows(sink, factor);
  return sink_statistics(map_with_sink(sink, share), rows, rows, kTokens, kSkip, true);
}

TEST(AttentionSinks, FindsTheSinkAndItsMass) {
  for (const Index sink : {Index{0}, Index{1}, Index{7}}) {
    const SinkStatistics s = statistics(sink, 0.75, 1);
    EXPECT_EQ(s.sink, sink);
    EXPECT_NEAR(s.mass, 0.75, 1e-14);
    EXPECT_NEAR(s.least, 0.75, 1e-14);
    EXPECT_EQ(s.routed, 1);
  }
}

TEST(AttentionSinks, ASmallValueIsANopALargeOneABroadcast) {
  EXPECT_EQ(sink_kind(statistics(0, 0.95, 0)), SinkKind::nop);
  EXPECT_EQ(statistics(0, 0.95, 0).ratio_out, 0);
  const SinkStatistics loud = statistics(0, 0.95, 3);
  EXPECT_EQ(sink_kind(loud), SinkKind::broadcast);
  EXPECT_LT(loud.stable_rank, 1.01) << "nineteen twentieths of all rows are one vector";
  EXPECT_EQ(sink_kind(statistics(0, 0.3, 3)), SinkKind::none);
}

// The strict event asks every row; counts take values in place of outputs and no rank.
TEST(AttentionSinks, StrictEventAndCounts) {
  EXPECT_FALSE(strict_sink(statistics(0, 0.75, 1), 0.2));
  EXPECT_TRUE(strict_sink(statistics(0, 0.75, 1), 0.3));
  const auto head = [](double routed, double least, double ratio_head) {
    SinkStatistics s;
    s.routed = routed, s.least = least, s.ratio_head = ratio_head;
    s.ratio_out = 1 - ratio_head, s.stable_rank = 9;
    return s;
  };
  const std::vector<SinkStatistics> heads = {head(1, 0.75, 0.1), head(0.9, 0, 0.2), head(1, 0.875, 0.5),
                                             head(1, 0.5, 0.3), head(0.8, 0, 0.1)};
  const auto counts = [&](std::optional<double> eps) {
    const SinkCounts c = count_sinks(heads, eps);
    return std::vector<Index>{c.sinks, c.nops, c.broadcasts};
  };
  EXPECT_EQ(counts(std::nullopt), (std::vector<Index>{4, 2, 1}));
  EXPECT_EQ(counts(0.5), (std::vector<Index>{3, 1, 1}));
  EXPECT_EQ(counts(0.25), (std::vector<Index>{2, 1, 1}));
  EXPECT_EQ(counts(0.125), (std::vector<Index>{1, 0, 1}));
  EXPECT_EQ(counts(0.0625), (std::vector<Index>{0, 0, 0}));
}

// |v_s| over the mean of the others: by hand, 3 over (1 + 2) / 2.
TEST(AttentionSinks, RatiosAreNorms) {
  const std::vector<double> a = {1, 0, 0, 1, 0, 0, 1, 0, 0}, values = {3, 0, 1, 0, 0, 2},
                            outputs = {0, 4, 0, 1, 1, 0};
  const SinkStatistics s = sink_statistics(a, values, outputs, 3, 1, true);
  EXPECT_EQ(s.sink, 0);
  EXPECT_DOUBLE_EQ(s.ratio_head, 2);
  EXPECT_DOUBLE_EQ(s.ratio_out, 4);
  EXPECT_DOUBLE_EQ(s.stable_rank, 1);
}

TEST(AttentionSinks, StableRankAndSharedEnergy) {
  EXPECT_NEAR(stable_rank({1, 0, 0, 0, 1, 0, 0, 0, 1}, 3), 3, 1e-12);
  EXPECT_NEAR(stable_rank({2, 0, 0, 1}, 2), 5.0 / 4, 1e-12);
  EXPECT_NEAR(stable_rank({2, 0, 0, 0, 1, 0}, 2), 5.0 / 4, 1e-12);  // wide
  EXPECT_NEAR(stable_rank({2, 0, 0, 1, 0, 0}, 3), 5.0 / 4, 1e-12);  // tall
  EXPECT_EQ(stable_rank({0, 0, 0, 0}, 2), 0);
  EXPECT_NEAR(shared_energy({1, 2, 1, 2, 1, 2}, 3), 1, 1e-15);
  EXPECT_NEAR(shared_energy({1, 2, -1, -2}, 2), 0, 1e-15);
  EXPECT_NEAR(shared_energy({3, 0, 1, 0}, 2), 0.8, 1e-15);
}

// Where every row sees every key, any of them may be the sink, and all rows judge it.
TEST(AttentionSinks, OfAnEncoderAnyKeyMayBeTheSink) {
  for (const Index sink : {Index{0}, kTokens - 1}) {
    std::vector<double> a(static_cast<std::size_t>(kTokens * kTokens), 0.25 / (kTokens - 1));
    for (Index i = 0; i < kTokens; ++i) a[static_cast<std::size_t>(i * kTokens + sink)] = 0.75;
    a[static_cast<std::size_t>(sink)] = 0.25;  // row 0 counts too
    const auto rows = random_rows(sink, 0);
    const SinkStatistics s = sink_statistics(a, rows, rows, kTokens, 0, false);
    EXPECT_EQ(s.sink, sink);
    EXPECT_NEAR(s.mass, 0.75 - 0.5 / kTokens, 1e-14);
    EXPECT_EQ(s.least, 0.25);
    EXPECT_NEAR(s.routed, (kTokens - 1.0) / kTokens, 1e-14);
    EXPECT_EQ(s.ratio_out, 0);
  }
}

// A key that only late rows see wins no contest that few rows judge.
TEST(AttentionSinks, TheLastKeyIsNoSink) {
  std::vector<double> a = map_with_sink(0, 0.6);
  for (Index j = 0; j < kTokens; ++j)
    a[static_cast<std::size_t>((kTokens - 1) * kTokens + j)] = j == kTokens - 1;
  EXPECT_EQ(sink_statistics(a, random_rows(0, 1), random_rows(0, 1), kTokens, kSkip, true).sink, 0);
}

}  // namespace
}  // namespace plait::probe
