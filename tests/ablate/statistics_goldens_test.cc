// tools/ablate/statistics against SciPy and statsmodels: statistics_goldens.json, written by
// verify_statistics.py --write.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tools/ablate/statistics/bootstrap.h"
#include "tools/ablate/statistics/clusters.h"
#include "tools/ablate/statistics/confidence_sequence.h"
#include "tools/ablate/statistics/multiplicity.h"
#include "tools/ablate/statistics/permutation.h"
#include "tools/ablate/statistics/power.h"
#include "tools/ablate/statistics/proportions.h"

namespace plait::ablate {
namespace {

using Numbers = std::vector<double>;
constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

const nlohmann::json& goldens() {
  static const nlohmann::json all = [] {
    std::ifstream file(std::string(PLAIT_SOURCE_DIR) + "/tests/ablate/statistics_goldens.json");
    return nlohmann::json::parse(file);
  }();
  return all;
}

void expect_close(double ours, double theirs, double relative, const nlohmann::json& row) {
  EXPECT_NEAR(ours, theirs, relative * std::abs(theirs)) << row;
}

void expect_close(const Interval& ours, const nlohmann::json& theirs, double tolerance,
                  const nlohmann::json& row) {
  EXPECT_NEAR(ours.low, theirs[0].get<double>(), tolerance) << row;
  EXPECT_NEAR(ours.high, theirs[1].get<double>(), tolerance) << row;
}

// The beta integral multiplies exp of a difference of log gammas, each rounded, by a continued fraction: a
// few roundings of the largest log gamma, and 1e-13 for the fraction. A quantile's relative error is that
// over the elasticity of the cdf, which is at least 1/2 in these cases.
double beta_tolerance(double a, double b) { return 8 * kEpsilon * std::abs(std::lgamma(a + b)) + 1e-13; }

TEST(StatisticsGoldens, Beta) {
  for (const auto& row : goldens()["beta"]) {
    const double a = row["a"], b = row["b"], x = row["x"], cdf = row["cdf"];
    expect_close(beta_cdf(x, a, b), cdf, beta_tolerance(a, b), row);
    if (1 - x > 1e-3) expect_close(beta_quantile(cdf, a, b), x, 2 * beta_tolerance(a, b), row);
  }
}

TEST(StatisticsGoldens, Student) {
  for (const auto& row : goldens()["student"]) {
    const double degrees = row["degrees"], tolerance = 2 * beta_tolerance(degrees / 2, 0.5);
    if (row.contains("t"))
      // The argument degrees / (degrees + t^2) rounds at 1, which t^2 / degrees is measured from.
      expect_close(student_two_sided(row["t"], degrees), row["p"],
                   tolerance + kEpsilon * degrees / std::pow(row["t"].get<double>(), 2), row);
    else
      expect_close(student_critical(row["level"], degrees), row["critical"], tolerance + kEpsilon * degrees,
                   row);
  }
}

TEST(StatisticsGoldens, NormalAndBinomial) {
  for (const auto& row : goldens()["normal"]) {
    const double p = row["p"], z = row["z"];
    EXPECT_NEAR(normal_quantile(p), z, 8 * kEpsilon * (1 + std::abs(z))) << row;
    expect_close(normal_cdf(z), p, 8 * kEpsilon * (1 + z * z), row);
  }
  for (const auto& row : goldens()["binomial"])
    expect_close(binomial_cdf(row["k"], row["n"], row["probability"]), row["cdf"],
                 beta_tolerance(row["n"].get<double>() + 1, 0), row);
}

TEST(StatisticsGoldens, ClusterRobustErrorIsTheRegressionSandwich) {
  for (const auto& row : goldens()["clusters"]) {
    const auto clusters = sum_by_cluster(row["values"].get<Numbers>(), row["weights"].get<Numbers>(),
                                         row["ids"].get<std::vector<Index>>());
    const StudentTest test = student_test(clusters, 0.95);
    expect_close(mean(clusters), row["mean"], 1e-12, row["name"]);
    expect_close(standard_error(clusters), row["standard_error"], 1e-12, row["name"]);
    expect_close(test.t, row["t"], 1e-12, row["name"]);
    expect_close(test.p, row["p"], 1e-11, row["name"]);  // p's elasticity in t is below 8 here
    expect_close(test.interval, row["interval"], 1e-12, row["name"]);
  }
}

// Both sides are random. An end's standard error is that of a quantile, sqrt(.025 * .975 / B) / density, or
// 2.7 standard errors of the mean over sqrt(B); for BCa the bias adds sqrt(pi / 2) * 2 of them. With 400,000
// on both sides 5 deviations of the difference are 5 * sqrt(2) * 3.7 / 632 = 0.041 of a standard error,
// doubled for the thinner tail of a skewed distribution. Percentile and BCa ends of the skewed case lie 0.2
// apart.
TEST(StatisticsGoldens, Bootstrap) {
  for (const auto& row : goldens()["clusters"]) {
    if (row["name"] == "three") continue;  // ten different resamples: ends are ties
    const auto clusters = sum_by_cluster(row["values"].get<Numbers>(), row["weights"].get<Numbers>(),
                                         row["ids"].get<std::vector<Index>>());
    BootstrapSettings settings;
    settings.resamples = goldens()["resamples"];
    settings.threads = 2;
    const double tolerance = 0.082 * standard_error(clusters);
    expect_close(bootstrap_interval(clusters, settings), row["bca"], tolerance, row["name"]);
    settings.interval = BootstrapInterval::percentile;
    const Interval percentile = bootstrap_interval(clusters, settings);
    expect_close(percentile, row["percentile"], tolerance, row["name"]);
    if (row["name"] == "skewed") {
      EXPECT_GT(std::abs(percentile.high - row["bca"][1].get<double>()), tolerance);
    }
  }
}

TEST(StatisticsGoldens, SignFlip) {
  int exact = 0;
  for (const auto& row : goldens()["clusters"]) {
    if (!row.contains("sign_flip")) continue;
    const auto clusters = sum_by_cluster(row["values"].get<Numbers>(), row["weights"].get<Numbers>(),
                                         row["ids"].get<std::vector<Index>>());
    EXPECT_EQ(sign_flip_test(clusters, {}).p, row["sign_flip"].get<double>()) << row["name"];
    ++exact;
  }
  EXPECT_EQ(exact, 2);
}

TEST(StatisticsGoldens, PairedT) {
  const auto& row = goldens()["paired_t"];
  Numbers differences = row["condition"].get<Numbers>();
  for (std::size_t i = 0; i < differences.size(); ++i) differences[i] -= row["baseline"][i].get<double>();
  const StudentTest test = student_test(one_per_item(differences), 0.95);
  expect_close(test.t, row["t"], 1e-12, row);
  expect_close(test.p, row["p"], 1e-11, row);
  expect_close(test.interval, row["interval"], 1e-12, row);
}

TEST(StatisticsGoldens, Proportions) {
  for (const auto& row : goldens()["proportions"]) {
    expect_close(wilson_interval(row["successes"], row["n"], row["level"]), row["wilson"], 1e-14, row);
    const double tolerance = beta_tolerance(row["n"].get<double>() + 1, 0);
    expect_close(clopper_pearson_interval(row["successes"], row["n"], row["level"]), row["clopper_pearson"],
                 tolerance, row);
  }
  for (const auto& row : goldens()["mcnemar"])
    expect_close(mcnemar_p({row["lost"], row["gained"]}), row["p"],
                 beta_tolerance(row["lost"].get<double>() + row["gained"].get<double>() + 1, 0), row);
}

TEST(StatisticsGoldens, Multiplicity) {
  for (const auto& row : goldens()["multiplicity"]) {
    const Numbers p = row["p"], holm = adjust(Adjustment::holm, p);
    const Numbers bh = adjust(Adjustment::benjamini_hochberg, p);
    ASSERT_EQ(holm.size(), row["holm"].size());
    for (std::size_t i = 0; i < p.size(); ++i) {
      expect_close(holm[i], row["holm"][i], 4 * kEpsilon, row);
      expect_close(bh[i], row["bh"][i], 4 * kEpsilon, row);
    }
  }
}

TEST(StatisticsGoldens, Power) {
  for (const auto& row : goldens()["power"]) {
    const PowerSettings settings = {row["power"], row["alpha"]};
    expect_close(smallest_effect(row["clusters"], row["sd"], settings), row["effect"], 1e-12, row);
    EXPECT_EQ(clusters_needed(row["effect"].get<double>() * (1 + 1e-9), row["sd"], settings),
              row["clusters"]);
  }
}

// Its ends are where the Bayes factor, by quadrature over mean and deviation, is 20.
TEST(StatisticsGoldens, ConfidenceSequence) {
  for (const auto& row : goldens()["confidence_sequence"]) {
    ConfidenceSequence sequence({row["level"], row["tightest_at"], 2});
    for (std::size_t i = 0; i < row["sums"].size(); ++i) sequence.add({row["sums"][i], row["weights"][i], 1});
    expect_close(sequence.interval(), row["interval"], 1e-9, row);
  }
}

}  // namespace
}  // namespace plait::ablate
