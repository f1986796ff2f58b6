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
  return sink_statistics(map_with_sink(sink, share), rows, rows, kTokens, kSkip);
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

// The strict event asks every row, the count tables the values in place of the outputs and no rank.
TEST(AttentionSinks, StrictEventAndCounts) {
  SinkStatistics s;
  s.routed = 1;
  s.least = 0.75;
  EXPECT_TRUE(strict_sink(s, 0.25));
  EXPECT_FALSE(strict_sink(s, 0.125));
  EXPECT_FALSE(strict_sink(statistics(0, 0.75, 1), 0.2));
  EXPECT_TRUE(strict_sink(statistics(0, 0.75, 1), 0.3));
  const auto counted = [&](double head, double out, double rank) {
    s.ratio_head = head, s.ratio_out = out, s.stable_rank = rank;
    return counted_kind(s);
  };
  EXPECT_EQ(counted(0.1, 0.7, 1), SinkKind::nop);
  EXPECT_EQ(sink_kind(s), SinkKind::broadcast);
  EXPECT_EQ(counted(0.7, 0.1, 9), SinkKind::broadcast);
  EXPECT_EQ(sink_kind(s), SinkKind::nop);
  EXPECT_EQ(counted(0.7, 0.7, 9), SinkKind::broadcast);
  EXPECT_EQ(sink_kind(s), SinkKind::other);
  EXPECT_EQ(counted(0.3, 0.7, 1), SinkKind::other);
  s.routed = 0.8;
  EXPECT_EQ(counted(0.1, 0.1, 1), SinkKind::none);
}

// |v_s| over the mean of the others: by hand, 3 over (1 + 2) / 2.
TEST(AttentionSinks, RatiosAreNorms) {
  const std::vector<double> a = {1, 0, 0, 1, 0, 0, 1, 0, 0}, values = {3, 0, 1, 0, 0, 2},
                            outputs = {0, 4, 0, 1, 1, 0};
  const SinkStatistics s = sink_statistics(a, values, outputs, 3, 1);
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

// A key that only late rows see wins no contest that few rows judge.
TEST(AttentionSinks, TheLastKeyIsNoSink) {
  std::vector<double> a = map_with_sink(0, 0.6);
  for (Index j = 0; j < kTokens; ++j)
    a[static_cast<std::size_t>((kTokens - 1) * kTokens + j)] = j == kTokens - 1;
  EXPECT_EQ(sink_statistics(a, random_rows(0, 1), random_rows(0, 1), kTokens, kSkip).sink, 0);
}

}  // namespace
}  // namespace plait::probe
