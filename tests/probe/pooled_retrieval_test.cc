#include "tools/probe/pooled_retrieval.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/error.h"
#include "tests/testing.h"
#include "tools/plot/chart.h"

namespace plait::probe {
namespace {

using Partners = std::vector<std::vector<Index>>;

UnitRows rows(Index width, const std::vector<double>& values) {
  return unit_rows(static_cast<Index>(values.size()) / width, width, values, "rows");
}

TEST(PooledRetrieval, RowsHaveLengthOne) {
  const UnitRows r = rows(2, {3, 4, 1e200, 1e200, 0, -1e-200});
  const double expected[] = {0.6, 0.8, std::sqrt(0.5), std::sqrt(0.5), 0, -1};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(r.values[static_cast<std::size_t>(i)], expected[i], 1e-15);
  for (const double bad : {0.0, std::nan(""), HUGE_VAL}) {
    try {
      unit_rows(2, 1, {1, bad}, "FILE");
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("row 1 of 'FILE'"), std::string::npos) << error.what();
    }
  }
}

// Query (1, 0) against (1, 0), (0, 1), (-1, 0) at temperature 1/2: scores 2, 0, -2.
TEST(PooledRetrieval, ByHand) {
  const UnitRows query = rows(2, {5, 0}), pool = rows(2, {1, 0, 0, 3, -2, 0});
  const double z = std::exp(2) + 1 + std::exp(-2);
  for (const auto& [partner, rank] : {std::pair{Index{0}, Index{1}}, {1, 2}, {2, 3}}) {
    const Retrieval r = retrieve(query, pool, {{partner}}, 0.5, 1);
    EXPECT_EQ(r.rank, std::vector<Index>{rank});
    EXPECT_NEAR(r.loss, std::log(z) - 2 + 2 * static_cast<double>(partner), 1e-14);
    EXPECT_EQ(r.recall(1), rank == 1);
    EXPECT_EQ(r.recall(2), rank <= 2);
    EXPECT_EQ(r.recall(10), 1);
  }
  // Of several partners the best counts for the rank, all for the share.
  const Retrieval both = retrieve(query, pool, {{2, 1}}, 0.5, 1);
  EXPECT_EQ(both.rank, std::vector<Index>{2});
  EXPECT_NEAR(both.loss, -std::log((1 + std::exp(-2)) / z), 1e-14);
}

// Candidates that cannot be told apart come before the partner: equal embeddings find nothing.
TEST(PooledRetrieval, TiesAreNoSuccess) {
  testing::Numbers numbers(7);
  for (const Index width : {1, 3, 8, 13}) {
    constexpr Index n = 11;
    std::vector<double> one, all, query;
    for (Index c = 0; c < width; ++c) one.push_back(numbers.normal()), query.push_back(numbers.normal());
    for (Index i = 0; i < n; ++i) all.insert(all.end(), one.begin(), one.end());
    for (Index partner = 0; partner < n; ++partner)
      EXPECT_EQ(retrieve(rows(width, query), rows(width, all), {{partner}}, 1, 1).rank[0], n)
          << width << ' ' << partner;
  }
}

// From the definitions, in plain loops; a query without a partner is left out; threads change nothing.
TEST(PooledRetrieval, IsTheDefinition) {
  constexpr Index n = 17, m = 23, width = 5;
  constexpr double temperature = 0.2;
  testing::Numbers numbers(8);
  std::vector<double> a, b;
  for (Index i = 0; i < n * width; ++i) a.push_back(numbers.normal());
  for (Index i = 0; i < m * width; ++i) b.push_back(numbers.normal());
  Partners partners(n);
  for (Index q = 0; q < n; ++q)
    if (q != 4) partners[static_cast<std::size_t>(q)] = {3 * q % m};
  const auto dot = [](const double* x, const double* y) {
    double sum = 0;
    for (Index c = 0; c < width; ++c) sum += x[c] * y[c];
    return sum;
  };
  std::vector<Index> ranks;
  double loss = 0;
  for (Index q = 0; q < n; ++q) {
    if (q == 4) continue;
    const double* x = a.data() + q * width;
    std::vector<double> scores;
    double z = 0;
    for (Index p = 0; p < m; ++p) {
      const double* y = b.data() + p * width;
      scores.push_back(dot(x, y) / std::sqrt(dot(x, x) * dot(y, y)) / temperature);
      z += std::exp(scores.back());
    }
    const double own = scores[static_cast<std::size_t>(3 * q % m)];
    Index rank = 1;
    for (const double s : scores) rank += s > own;
    ranks.push_back(rank);
    loss -= std::log(std::exp(own) / z) / (n - 1);
  }
  for (const int threads : {1, 3}) {
    const Retrieval r = retrieve(rows(width, a), rows(width, b), partners, temperature, threads);
    EXPECT_EQ(r.rank, ranks);
    EXPECT_NEAR(r.loss, loss, 1e-13);
  }
}

TEST(PooledRetrieval, RecallAndMedian) {
  const Retrieval r{{1, 7, 2, 11}, 0};
  EXPECT_EQ(r.recall(1), 0.25);
  EXPECT_EQ(r.recall(2), 0.5);
  EXPECT_EQ(r.recall(10), 0.75);
  EXPECT_EQ(r.median_rank(), 4.5);
  EXPECT_EQ((Retrieval{{9, 1, 3}, 0}).median_rank(), 3);
}

// Scores 0, 1, 2, 3 with values 1, 2, 4, 5: by hand alpha = 7 / 5, beta = 9 / 10, residuals 0.1, -0.3, 0.3,
// -0.1.
TEST(PooledRetrieval, CalibrationByHand) {
  const Calibration c = calibrate({0, 1, 2, 3}, {1, 2, 4, 5});
  EXPECT_NEAR(c.alpha, 1.4, 1e-14);
  EXPECT_NEAR(c.beta, 0.9, 1e-14);
  EXPECT_NEAR(c.error, std::sqrt(0.2 / 4), 1e-14);
  EXPECT_NEAR(c.correlation, 7 / std::sqrt(50), 1e-14);
  EXPECT_NEAR(c.alpha_error, std::sqrt(0.1 / 5), 1e-14);
  EXPECT_NEAR(c.beta_error, std::sqrt(0.1 * (0.25 + 2.25 / 5)), 1e-14);
}

// The line of all others, fitted for each value anew.
TEST(PooledRetrieval, LeftOutErrorIsThatOfRefittedLines) {
  testing::Numbers numbers(9);
  std::vector<double> x, y;
  for (int i = 0; i < 12; ++i) {
    x.push_back(numbers.normal());
    y.push_back(-2 * x.back() + 7 + 0.3 * numbers.normal());
  }
  double squares = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    std::vector<double> others_x = x, others_y = y;
    others_x.erase(others_x.begin() + static_cast<std::ptrdiff_t>(i));
    others_y.erase(others_y.begin() + static_cast<std::ptrdiff_t>(i));
    const Calibration c = calibrate(others_x, others_y);
    const double off = y[i] - c.alpha * x[i] - c.beta;
    squares += off * off;
  }
  const Calibration c = calibrate(x, y);
  EXPECT_NEAR(c.left_out_error, std::sqrt(squares / 12), 1e-13);
  EXPECT_GT(c.left_out_error, c.error);
  EXPECT_NEAR(c.alpha, -2, 5 * c.alpha_error);
  EXPECT_NEAR(c.beta, 7, 5 * c.beta_error);
  // Without the third value the others have one score and no line.
  EXPECT_EQ(calibrate({1, 1, 2}, {0, 1, 5}).left_out_error, HUGE_VAL);
}

// Energies far from zero fill the chart instead of a corner.
TEST(ScatterChart, ScalesNeedNotReachZero) {
  plot::ScatterChart chart;
  chart.guide = plot::ScatterChart::Guide::diagonal;
  chart.points = {{-10, -10.5, "", false, 0, ""}, {-8, -8.5, "", false, 0, ""}};
  EXPECT_NE(draw(chart, 343).str().find(">0</text>"), std::string::npos);
  chart.from_zero = false;
  const std::string svg = draw(chart, 343).str();
  EXPECT_EQ(svg.find(">0</text>"), std::string::npos);
  EXPECT_NE(svg.find("\u22129"), std::string::npos);
}

}  // namespace
}  // namespace plait::probe
