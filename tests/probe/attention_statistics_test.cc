#include "tools/probe/attention_statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/run/recording.h"
#include "tests/testing.h"

namespace plait::probe {
namespace {

// softmax-family.md 3.2: at most sqrt N, that for rows that choose one key; 1 for uniform rows of N keys.
TEST(AttentionStatistics, FrobeniusNorm) {
  EXPECT_DOUBLE_EQ(frobenius_norm(std::vector<double>{0, 3, -4, 0}), 5);
  constexpr Index n = 9;
  std::vector<double> chosen(n * n), uniform(n * n, 1.0 / n), causal(n * n);
  double harmonic = 0;
  for (Index i = 0; i < n; ++i) {
    chosen[static_cast<std::size_t>(i * n + i / 2)] = 1;
    for (Index j = 0; j <= i; ++j) causal[static_cast<std::size_t>(i * n + j)] = 1.0 / (i + 1);
    harmonic += 1.0 / (i + 1);
  }
  EXPECT_DOUBLE_EQ(frobenius_norm(chosen), 3);
  EXPECT_NEAR(frobenius_norm(uniform), 1, 1e-14);  // rounding of 81 squares
  EXPECT_NEAR(frobenius_norm(causal), std::sqrt(harmonic), 1e-15);
}

TEST(AttentionStatistics, PairwiseCosineDistanceByHand) {
  const auto distance = [](const std::vector<float>& rows, Index count) {
    return pairwise_cosine_distance(rows, count);
  };
  EXPECT_NEAR(distance({1, 2, 10, 20, 0.5f, 1}, 3), 0, 1e-15);  // one direction, three lengths
  EXPECT_NEAR(distance({3, 0, 0, 4}, 2), 1, 1e-15);             // orthogonal
  EXPECT_NEAR(distance({1, 0, -2, 0}, 2), 2, 1e-15);            // opposite
  EXPECT_NEAR(distance({1, 0, 0, 1, 1, 1}, 3), 1 - 2 * std::sqrt(0.5) / 3, 1e-15);  // cosines 0, 2 x 1/sqrt 2
  EXPECT_NEAR(distance({1, 0, 0, 0, 0, 1}, 3), 1, 1e-15);  // the row of zeros is left out
  EXPECT_EQ(distance({1, 0, 0, 0}, 2), 0);
}

// The mean over unit rows' sum is the mean over pairs.
TEST(AttentionStatistics, PairwiseCosineDistanceIsAMeanOverPairs) {
  constexpr Index n = 20, width = 7;
  const std::vector<float> rows = testing::Numbers(5).normals(n * width);
  const auto dot = [&](Index a, Index b) {
    double sum = 0;
    for (Index c = 0; c < width; ++c)
      sum += static_cast<double>(rows[static_cast<std::size_t>(a * width + c)]) *
             rows[static_cast<std::size_t>(b * width + c)];
    return sum;
  };
  double sum = 0;
  for (Index a = 0; a < n; ++a)
    for (Index b = 0; b < a; ++b) sum += 1 - dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
  EXPECT_NEAR(pairwise_cosine_distance(rows, n), sum / (n * (n - 1) / 2), 1e-14);
}

TEST(AttentionStatistics, GateStatisticsByHand) {
  const GateStatistics s = gate_statistics(std::vector<float>{0, 0.0625f, 0.5f, 0.9375f});
  EXPECT_EQ(s.mean, 0.375);
  EXPECT_EQ(s.closed, 0.5);
  EXPECT_EQ(s.open, 0.25);
}

// Gate factors that a recording keeps are those of the double-precision twin.
TEST(AttentionStatistics, RecordsTheFactorsOfTheGate) {
  const Json settings =
      Json::parse(R"({"num_heads": 4, "head_dim": 16, "gate": "sigmoid", "gate_bias": true})");
  const auto model = testing::random_model(testing::card_of_kind("softmax_attention", settings), 3);
  const std::vector<Token> tokens = testing::Numbers(4).tokens(30, 97);
  RecordRequest request;
  request.inner_rows = {Site::gate};
  const Recording recording = record(*model, std::vector<std::vector<Token>>{tokens}, request, {});
  const Reading reading = read_attention(model, tokens, {}, {});
  const std::vector<float>& fast = recording.nodes.at(reading.nodes[0].name)->inner_rows.at(Site::gate);
  ASSERT_EQ(fast.size(), 30u * 64);
  std::vector<float> twin;
  for (Index i = 0; i < 30; ++i)
    for (const double factor : reading.nodes[0].sequence->gates(i))
      twin.push_back(static_cast<float>(factor));
  double most = 0;
  for (std::size_t i = 0; i < fast.size(); ++i)
    most = std::max(most, std::abs(static_cast<double>(fast[i]) - twin[i]));
  EXPECT_LT(most, 1e-5);  // a product of 64 terms near 1 in size, whose rounding a sigmoid quarters
  const GateStatistics s = gate_statistics(fast), t = gate_statistics(twin);
  EXPECT_NEAR(s.mean, t.mean, 1e-5);
  EXPECT_GT(s.mean, 0.1);
  EXPECT_LT(s.mean, 0.9);
  EXPECT_EQ(recording.nodes.count("embed"), 1u);
  EXPECT_TRUE(recording.nodes.at("embed")->inner_rows.empty());
}

}  // namespace
}  // namespace plait::probe
