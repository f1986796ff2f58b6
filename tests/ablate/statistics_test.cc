// Properties of tools/ablate/statistics, and the numbers published with the reference study (arXiv
// 2603.22473) or recomputed from them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>

#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "tests/testing.h"
#include "tools/ablate/statistics/confidence_sequence.h"
#include "tools/ablate/statistics/effects.h"
#include "tools/ablate/statistics/multiplicity.h"
#include "tools/ablate/statistics/paired.h"
#include "tools/ablate/statistics/power.h"
#include "tools/ablate/statistics/proportions.h"
#include "tools/ablate/statistics/rank.h"
#include "tools/ablate/statistics/resample.h"
#include "tools/ablate/statistics/shapley.h"

namespace plait::ablate {
namespace {

using Values = std::vector<double>;

void expect_refusal(const std::function<void()>& call, const std::string& part) {
  try {
    call();
    FAIL() << "nothing was thrown; expected: " << part;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

bool same_bits(const Values& a, const Values& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

// Documents of unequal length with an effect of 0.3 nats per token.
std::vector<Cluster> documents(Index count, std::uint64_t seed, double effect = 0.3) {
  testing::Numbers numbers(seed);
  std::vector<Cluster> clusters;
  for (Index i = 0; i < count; ++i) {
    const double tokens = std::floor(numbers.uniform(50, 400));
    clusters.push_back({tokens * (effect + 0.5 * numbers.normal()), tokens, 1});
  }
  return clusters;
}

// --- The reference study. Losses in nats of five draws each (1.3d of the specification), to two decimals.

struct RandomRemoval {
  Values hybrid, plain;  // Qwen3.5-0.8B, Qwen2.5-0.5B, the same layers removed
  double ratio, gap, low, high, p;
};

const RandomRemoval kEighteen = {{13.45, 14.83, 14.31, 14.00, 14.72},
                                 {13.83, 15.62, 17.71, 14.12, 19.24},
                                 20.49,
                                 1.38,
                                 -1.09,
                                 3.85,
                                 0.375};
const RandomRemoval kSix = {
    {12.23, 4.15, 3.55, 7.07, 4.84}, {17.47, 10.79, 5.15, 7.86, 11.35}, 118.71, 3.69, 0.25, 7.14, 0.0625};
constexpr double kHybridBaseline = 2.03, kPlainBaseline = 2.49;

double mean_perplexity(const Values& losses) {
  double sum = 0;
  for (const double loss : losses) sum += std::exp(std::min(loss, 20.0));
  return sum / static_cast<double>(losses.size());
}

class ReferenceStudy : public ::testing::TestWithParam<RandomRemoval> {};

// "20 to 119 times more resilient": a ratio of arithmetic means of perplexity, led by single draws.
TEST_P(ReferenceStudy, RatiosOfArithmeticMeans) {
  const RandomRemoval& study = GetParam();
  const double ratio = mean_perplexity(study.plain) / std::exp(kPlainBaseline) /
                       (mean_perplexity(study.hybrid) / std::exp(kHybridBaseline));
  EXPECT_NEAR(ratio, study.ratio, 0.005);
}

// The same draws in nats, paired: half a unit of the last printed digit, and half a unit of each of the four
// losses that enter (0.01 in a mean of differences, 2.4 times that and more in an end).
TEST_P(ReferenceStudy, PairedInNats) {
  const RandomRemoval& study = GetParam();
  Values gaps;
  for (std::size_t i = 0; i < study.plain.size(); ++i)
    gaps.push_back((study.plain[i] - kPlainBaseline) - (study.hybrid[i] - kHybridBaseline));
  const auto draws = one_per_item(gaps);
  const StudentTest test = student_test(draws, 0.95);
  EXPECT_NEAR(mean(draws), study.gap, 0.015);
  EXPECT_NEAR(test.interval.low, study.low, 0.03);
  EXPECT_NEAR(test.interval.high, study.high, 0.03);
  const SignFlipTest flips = sign_flip_test(draws, {});
  EXPECT_EQ(flips.p, study.p);
  EXPECT_EQ(flips.assignments, 32);
  // 2 / 2^5 is the smallest p that five draws can give.
  EXPECT_EQ(sign_flip_test(one_per_item(Values{1, 1, 1, 1, 1}), {}).p, 0.0625);
}

INSTANTIATE_TEST_SUITE_P(Draws, ReferenceStudy, ::testing::Values(kEighteen, kSix));

// Defect 9 and P10: 50 items at a paired deviation of .46. The table has z_{.975} + z_{.8} = 2.8016 as 2.8,
// which is 0.06 % less, and rounds to its last digit.
TEST(Power, TableOfTheProtocol) {
  struct Row {
    Index items;
    double effect, digit;
  };
  for (const Row& row : {Row{50, 0.18, 0.01}, Row{100, 0.13, 0.01}, Row{299, 0.074, 0.001},
                         Row{790, 0.046, 0.001}, Row{2000, 0.029, 0.001}})
    EXPECT_NEAR(smallest_effect(row.items, 0.46), row.effect, row.digit / 2 + 0.0006 * row.effect)
        << row.items;
  EXPECT_NEAR(0.46 / std::sqrt(50.0), 0.065, 0.0005);
  EXPECT_EQ(clusters_needed(smallest_effect(790, 0.46) * 1.0001, 0.46), 790);
  EXPECT_GT(smallest_effect(50, 0.46, {0.8, 0.05 / 72}), smallest_effect(50, 0.46));
  expect_refusal([] { smallest_effect(1, 0.46); }, "at least 2 clusters, found 1");
  expect_refusal([] { smallest_effect(50, 0.46, {1, 0.05}); }, "between 0 and 1, found 1");
  expect_refusal([] { clusters_needed(0, 0.46); }, "above 0, found 0");
}

// --- Clusters

TEST(Clusters, RatioOfSumsIsPerToken) {
  // Two documents of 1 and 99 tokens: nats per token is not the mean of the documents' means.
  const auto clusters = sum_by_cluster(Values{5, 4, 90}, Values{1, 9, 90}, std::vector<Index>{7, 2, 2});
  ASSERT_EQ(clusters.size(), 2u);
  EXPECT_EQ(clusters[0].items, 2);  // id 2 comes before id 7
  EXPECT_EQ(mean(clusters), 0.99);
}

// Tokens, windows or whole documents as items: the same clusters, so the same statistics.
TEST(Clusters, ItemsWithinADocumentMayBeCutAnyhow) {
  const auto tokens = sum_by_cluster(Values{1, 2, 3, 4, 5}, {}, std::vector<Index>{0, 0, 1, 1, 1});
  const auto windows = sum_by_cluster(Values{3, 7, 5}, Values{2, 2, 1}, std::vector<Index>{0, 1, 1});
  EXPECT_EQ(mean(tokens), mean(windows));
  EXPECT_EQ(standard_error(tokens), standard_error(windows));
}

// A hundred copies of one document's tokens tell nothing new: the error must not fall with them.
TEST(Clusters, ErrorCountsDocumentsNotTokens) {
  Values few, many;
  std::vector<Index> few_ids, many_ids;
  testing::Numbers numbers(1);
  for (Index document = 0; document < 20; ++document) {
    const double value = numbers.normal();
    few.push_back(value);
    few_ids.push_back(document);
    many.insert(many.end(), 100, value);
    many_ids.insert(many_ids.end(), 100, document);
  }
  const double error = standard_error(sum_by_cluster(few, {}, few_ids));
  EXPECT_NEAR(standard_error(sum_by_cluster(many, {}, many_ids)), error, 1e-13 * error);
}

TEST(Clusters, BadInputIsASentence) {
  const std::vector<Index> ids = {0, 1};
  expect_refusal([&] { sum_by_cluster({}, {}, {}); }, "no item");
  expect_refusal([&] { sum_by_cluster(Values{1}, {}, ids); }, "1 differences but 2 cluster ids");
  expect_refusal([&] { sum_by_cluster(Values{1, 2}, Values{1}, ids); }, "2 differences but 1 weights");
  expect_refusal([&] { sum_by_cluster(Values{1, NAN}, {}, ids); }, "difference of item 1 is nan");
  expect_refusal([&] { sum_by_cluster(Values{1, 2}, Values{0, 1}, ids); }, "weight of item 0");
  expect_refusal([] { mean({}); }, "no cluster");
}

TEST(PairedMean, OneDocumentRefusesAnInterval) {
  const PairedMean one = paired_mean(documents(1, 2), {});
  EXPECT_NE(one.refused.find("at least 2 of them, found 1"), std::string::npos) << one.refused;
  EXPECT_TRUE(std::isfinite(one.value));
  EXPECT_TRUE(std::isnan(one.standard_error) && std::isnan(one.p) && std::isnan(one.interval.low));
  EXPECT_EQ(one.method, "");
  expect_refusal([] { standard_error(documents(1, 2)); }, "needs at least 2");
  expect_refusal([] { bootstrap_interval(documents(1, 2), {}); }, "needs at least 2");
  expect_refusal([] { sign_flip_test(documents(1, 2), {}); }, "needs at least 2");
}

TEST(PairedMean, FillsARow) {
  const auto clusters = documents(100, 3);
  const PairedMean row = paired_mean(clusters, {});
  EXPECT_EQ(row.value, mean(clusters));
  EXPECT_EQ(row.clusters, 100);
  EXPECT_EQ(row.items, 100);
  EXPECT_EQ(row.standard_error, standard_error(clusters));
  EXPECT_EQ(row.method, "cluster_bootstrap_bca");
  EXPECT_LT(row.interval.low, row.value);
  EXPECT_GT(row.interval.high, row.value);
  EXPECT_EQ(row.p, 1e-4);  // 1 / (9999 + 1)
  EXPECT_EQ(row.refused, "");
}

TEST(PairedMean, NoDifferenceIsNoEffect) {
  const PairedMean row = paired_mean(one_per_item(Values(30, 0.0)), {});
  EXPECT_EQ(row.value, 0);
  EXPECT_EQ(row.interval.low, 0);
  EXPECT_EQ(row.interval.high, 0);
  EXPECT_EQ(row.p, 1);
  EXPECT_EQ(student_test(one_per_item(Values(30, 0.0)), 0.95).p, 1);
}

// --- Resampling

// Philox of (block 0, purpose, replicate, 0) under the seed, last word first.
TEST(Resample, AreTheGeneratorsWords) {
  Resample draws(0x1122334455667788, Purpose::sign_flip, 9);
  const auto words = philox({0, 2, 9, 0}, {0x55667788, 0x11223344});
  for (const std::size_t i : {3u, 2u, 1u, 0u}) EXPECT_EQ(draws.word(), words[i]);
  EXPECT_EQ(draws.word(), philox({1, 2, 9, 0}, {0x55667788, 0x11223344})[3]);
}

TEST(Resample, BelowIsUniform) {
  Resample draws(1, Purpose::bootstrap, 0);
  std::vector<double> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts[static_cast<std::size_t>(draws.below(7))];
  double chi = 0;
  for (const double c : counts) chi += (c - 10000) * (c - 10000) / 10000;
  EXPECT_LT(chi, 22.46);  // 6 degrees of freedom, 99.9 %
}

TEST(Bootstrap, ThreadsChangeNoBit) {
  const auto clusters = documents(37, 4);
  BootstrapSettings settings;
  const Values alone = bootstrap_means(clusters, settings);
  settings.threads = 3;
  EXPECT_TRUE(same_bits(bootstrap_means(clusters, settings), alone));
  settings.resamples = 100;  // a replicate does not depend on how many there are
  EXPECT_TRUE(same_bits(bootstrap_means(clusters, settings), Values(alone.begin(), alone.begin() + 100)));
  settings.seed = 1;
  EXPECT_FALSE(same_bits(bootstrap_means(clusters, settings), Values(alone.begin(), alone.begin() + 100)));
}

// The replicates spread by the analytic error, less the bootstrap's sqrt((G - 1) / G). A deviation of B
// replicates has itself one of 1 / sqrt(2 B), here doubled for the ratio's curvature: 5 of them.
TEST(Bootstrap, SpreadIsTheStandardError) {
  const auto clusters = documents(200, 5);
  const Values means = bootstrap_means(clusters, {});
  const auto n = static_cast<double>(means.size());
  const double centre = std::accumulate(means.begin(), means.end(), 0.0) / n;
  double squares = 0;
  for (const double m : means) squares += (m - centre) * (m - centre);
  const double expected = standard_error(clusters) * std::sqrt(199.0 / 200);
  EXPECT_NEAR(std::sqrt(squares / n), expected, 5 * 2 / std::sqrt(2 * n) * expected);
}

TEST(Bootstrap, RefusesBadSettings) {
  const auto clusters = documents(5, 1);
  BootstrapSettings settings;
  settings.resamples = 0;
  expect_refusal([&] { bootstrap_interval(clusters, settings); }, "at least 1 resample, 0");
  settings.resamples = 10;
  settings.level = 1;
  for (const auto kind : {BootstrapInterval::percentile, BootstrapInterval::bca}) {
    settings.interval = kind;
    expect_refusal([&] { bootstrap_interval(clusters, settings); }, "between 0 and 1, found 1");
  }
}

// One document has all the skewness there can be, an acceleration of 1/6: the correction of the upper level
// has its pole 6 deviations out, and past it the end is the outermost replicate.
TEST(Bootstrap, BcaStaysWithinTheReplicates) {
  Values values(60, 0.0);
  values[0] = 1000;
  const auto clusters = one_per_item(values);
  Values means = bootstrap_means(clusters, {});
  const auto [low, high] = std::minmax_element(means.begin(), means.end());
  BootstrapSettings settings;
  settings.level = 1 - 1e-9;
  const Interval interval = bootstrap_interval(clusters, settings);
  EXPECT_GE(interval.low, *low);
  EXPECT_LE(interval.low, mean(clusters));
  EXPECT_EQ(interval.high, *high);
}

TEST(SignFlip, ExactCountsTies) {
  // Of the 8 assignments of {1, 2, 3}, two reach |6|; of {1, 1, 2}, none is larger than 4 and two equal it.
  EXPECT_EQ(sign_flip_test(one_per_item(Values{1, 2, 3}), {}).p, 0.25);
  EXPECT_EQ(sign_flip_test(one_per_item(Values{1, 2, -3}), {}).p, 1);
  // 0.1 + 0.2 and 0.3 differ in the last bit: |.1 + .2 - .3| = 0 for the purpose, which all 8 reach.
  EXPECT_EQ(sign_flip_test(one_per_item(Values{0.1, 0.2, -0.3}), {}).p, 1);
}

TEST(SignFlip, RefusesBadSettings) {
  SignFlipSettings settings;
  settings.exact_up_to = 31;
  expect_refusal([&] { sign_flip_test(documents(40, 1), settings); }, "at most 30 clusters, found 31");
  settings = {0, 0};
  expect_refusal([&] { sign_flip_test(documents(40, 1), settings); }, "at least 1 random flip, found 0");
}

TEST(SignFlip, RandomFlipsAgreeWithAllOfThem) {
  const auto clusters = documents(18, 6, 0.2);
  const SignFlipTest exact = sign_flip_test(clusters, {});
  SignFlipSettings settings;
  settings.exact_up_to = 0;
  settings.flips = 99999;
  const SignFlipTest sampled = sign_flip_test(clusters, settings);
  EXPECT_EQ(exact.assignments, Index{1} << 18);
  EXPECT_EQ(sampled.assignments, 100000);
  EXPECT_GT(exact.p, 0.001);  // a p with something to estimate
  EXPECT_NEAR(sampled.p, exact.p, 5 * std::sqrt(exact.p * (1 - exact.p) / 99999));
  settings.threads = 3;
  EXPECT_EQ(sign_flip_test(clusters, settings).p, sampled.p);
}

// Under no effect a p of at most 5 % comes up in 5 % of studies, whatever the clusters' lengths.
TEST(SignFlip, HoldsItsLevel) {
  int rejected = 0;
  constexpr int studies = 2000;
  for (int s = 0; s < studies; ++s)
    rejected += sign_flip_test(documents(10, 1000 + static_cast<std::uint64_t>(s), 0), {}).p <= 0.05;
  EXPECT_NEAR(rejected, 0.05 * studies, 5 * std::sqrt(0.05 * 0.95 * studies));
}

// --- Accuracy, families, controls

TEST(Proportions, CountsDiscordantItems) {
  const Discordant counts = discordant(Values{1, 1, 0, 0, 1}, Values{1, 0, 1, 0, 0});
  EXPECT_EQ(counts.lost, 2);
  EXPECT_EQ(counts.gained, 1);
  expect_refusal([] { discordant(Values{1, 0}, Values{1}); }, "answered 2 items, the condition 1");
  expect_refusal([] { discordant(Values{1, 0}, Values{1, 0.5}); }, "item 1 must count 0 or 1, found 0.5");
  expect_refusal([] { wilson_interval(3, 2, 0.95); }, "3 out of 2");
  expect_refusal([] { clopper_pearson_interval(1, 2, 0); }, "found 0");
}

// Sign flips of single items are McNemar's test: items both or neither got right change no sum.
TEST(Proportions, SignFlipsOfItemsAreMcNemar) {
  Values baseline(18, 1.0), condition(18, 1.0);
  for (const std::size_t lost : {0, 1, 2, 3, 4, 5, 6, 7, 8}) condition[lost] = 0;
  for (const std::size_t gained : {9, 10}) baseline[gained] = 0;
  const Discordant counts = discordant(baseline, condition);
  for (std::size_t i = 0; i < condition.size(); ++i) condition[i] -= baseline[i];
  const PairedMean accuracy = paired_mean(one_per_item(condition), {});
  EXPECT_EQ(accuracy.value, -7.0 / 18);
  EXPECT_LT(accuracy.interval.high, 0);
  EXPECT_NEAR(accuracy.p, mcnemar_p(counts), 1e-13);  // 134 / 2048
}

TEST(Multiplicity, KeepsOrderAndRefusesWhatIsNoP) {
  const Values p = {0.03, 0.001, 0.5, 0.02};
  EXPECT_EQ(adjust(Adjustment::none, p), p);
  EXPECT_EQ(to_string(Adjustment::holm) + to_string(Adjustment::benjamini_hochberg), "holmbh");
  for (const auto adjustment : {Adjustment::holm, Adjustment::benjamini_hochberg}) {
    const Values adjusted = adjust(adjustment, p);
    for (std::size_t i = 0; i < p.size(); ++i) EXPECT_GE(adjusted[i], p[i]);
    EXPECT_LT(adjusted[1], adjusted[3]);
    EXPECT_TRUE(adjust(adjustment, {}).empty());
    expect_refusal(
        [&] {
          adjust(adjustment, Values{0.5, NAN});
        },
        "comparison 1 must lie in [0, 1], found nan");
  }
}

TEST(ControlRank, SmallestPIsOneOverAllSets) {
  Values draws(199);
  std::iota(draws.begin(), draws.end(), 0.0);
  const ControlRank first = control_rank(1000, draws, 0.95);
  EXPECT_EQ(first.rank, 1);
  EXPECT_EQ(first.p_worse, 0.005);
  EXPECT_EQ(first.p_two_sided, 0.01);
  EXPECT_EQ(first.share_as_bad.low, 0);
  EXPECT_NEAR(first.share_as_bad.high, 1 - std::pow(0.025, 1.0 / 199), 1e-13);
  EXPECT_EQ(control_rank(-1, draws, 0.95).p_worse, 1);
  EXPECT_EQ(control_rank(198, draws, 0.95).rank, 2);  // a tie is no victory
  expect_refusal([] { control_rank(1, {}, 0.95); }, "no control draw");
  expect_refusal([] { control_rank(1, Values{1, NAN}, 0.95); }, "draw 1 is nan");
}

class ControlGaps : public ::testing::Test {
 protected:
  // Each draw removes 0.2 nats per token, give or take 0.1 between sets and 0.3 between documents.
  ControlGaps() : target_(documents(kClusters, 8, 0.5)) {
    testing::Numbers numbers(9);
    for (Index d = 0; d < kDraws; ++d) {
      const double effect = 0.2 + 0.1 * numbers.normal();
      for (const Cluster& c : target_) sums_.push_back(c.weight * (effect + 0.3 * numbers.normal()));
    }
  }
  View<const double> sums() const { return {sums_.data(), kDraws, kClusters}; }
  static constexpr Index kClusters = 40, kDraws = 25;
  std::vector<Cluster> target_;
  Values sums_;
};

TEST_F(ControlGaps, CoverDocumentsAndSets) {
  BootstrapSettings settings;
  settings.resamples = 2000;
  const ControlGap gap = control_gap(target_, sums(), settings);
  double weight = 0, all = 0;
  for (const Cluster& c : target_) weight += c.weight;
  for (const double s : sums_) all += s;
  EXPECT_NEAR(gap.value, mean(target_) - all / kDraws / weight, 1e-13);
  EXPECT_LT(gap.interval.low, gap.value);
  EXPECT_GT(gap.interval.high, gap.value);
  settings.threads = 3;
  const ControlGap threads = control_gap(target_, sums(), settings);
  EXPECT_EQ(threads.interval.low, gap.interval.low);
  EXPECT_EQ(threads.interval.high, gap.interval.high);
}

// With one document only the choice of sets varies, and with one set only the documents do: both are
// narrower.
TEST_F(ControlGaps, OneClusterLeavesTheSets) {
  Values effects;
  double total = 0;
  for (const Cluster& c : target_) total += c.weight;
  for (Index d = 0; d < kDraws; ++d)
    effects.push_back(std::accumulate(sums().row(d), sums().row(d) + kClusters, 0.0) / total);
  const std::vector<Cluster> one = {{mean(target_), 1, 1}};
  const Interval sets = control_gap(one, {effects.data(), kDraws, 1}, {}).interval;
  const Interval both = control_gap(target_, sums(), {}).interval;
  // The interval of a mean of 25 draws of deviation s: 2 * 1.96 * s / 5, to 15 % for the estimate of s and
  // the bootstrap's (24 / 25).
  const double error = standard_error(one_per_item(effects));
  EXPECT_NEAR(sets.high - sets.low, 2 * 1.96 * error * std::sqrt(24.0 / 25), 0.15 * 2 * 1.96 * error);
  EXPECT_LT(sets.high - sets.low, both.high - both.low);
  expect_refusal([&] { control_gap(one, sums(), {}); }, "1 clusters, the control draws have 40");
}

// --- Shapley

// A game on five players with interactions of every order; player 4 is a dummy.
double value_of(const std::set<Index>& coalition) {
  double v = 1;
  for (const Index i : {0, 1, 2, 3})
    if (coalition.contains(i)) v += 0.3 * static_cast<double>(i + 1);
  if (coalition.contains(0) && coalition.contains(1)) v += 2;
  if (coalition.contains(1) && coalition.contains(2) && coalition.contains(3)) v -= 1.5;
  return v;
}
// Interactions are shared equally by those who take part.
const Values kShares = {0.3 + 1, 0.6 + 1 - 0.5, 0.9 - 0.5, 1.2 - 0.5, 0};

Values values_along(const std::vector<Index>& order) {
  std::set<Index> coalition;
  Values values = {value_of(coalition)};
  for (const Index player : order) {
    coalition.insert(player);
    values.push_back(value_of(coalition));
  }
  return values;
}

std::vector<Index> random_order(testing::Numbers& numbers) {
  std::vector<Index> order = {0, 1, 2, 3, 4};
  for (std::size_t left = 5; left > 1; --left) std::swap(order[left - 1], order[numbers.bits() % left]);
  return order;
}

void add_pair(ShapleyEstimate& shapley, const std::vector<Index>& order) {
  shapley.add(order, values_along(order), values_along({order.rbegin(), order.rend()}));
}

TEST(Shapley, AllPermutationsGiveTheValues) {
  ShapleyEstimate shapley(5);
  std::vector<Index> order = {0, 1, 2, 3, 4};
  do add_pair(shapley, order);
  while (std::next_permutation(order.begin(), order.end()));
  EXPECT_EQ(shapley.pairs(), 120);
  for (std::size_t i = 0; i < kShares.size(); ++i) EXPECT_NEAR(shapley.values()[i], kShares[i], 1e-13);
}

TEST(Shapley, SampledValuesAreEfficientAndWithinTheirErrors) {
  ShapleyEstimate shapley(5);
  testing::Numbers numbers(3);
  for (Index pair = 0; pair < 400; ++pair) {
    add_pair(shapley, random_order(numbers));
    const double sum = std::accumulate(shapley.values().begin(), shapley.values().end(), 0.0);
    ASSERT_NEAR(sum, value_of({0, 1, 2, 3, 4}) - value_of({}), 1e-12) << pair;
  }
  const Values errors = shapley.standard_errors();
  for (std::size_t i = 0; i < kShares.size(); ++i) {
    EXPECT_NEAR(shapley.values()[i], kShares[i], 4 * errors[i] + 1e-13);
    EXPECT_EQ(errors[i] > 1e-9, i == 1 || i == 2 || i == 3) << i;
  }
}

TEST(Shapley, StopsOnTheWidestInterval) {
  ShapleyEstimate shapley(5);
  testing::Numbers numbers(4);
  while (!shapley.settled(0.2, 0.95, 10)) add_pair(shapley, random_order(numbers));
  EXPECT_GT(shapley.pairs(), 10);
  double widest = 0;
  for (const Interval& i : shapley.intervals(0.95)) widest = std::max(widest, i.high - i.low);
  EXPECT_LE(widest, 0.2);
  EXPECT_FALSE(shapley.settled(0.2, 0.95, shapley.pairs() + 1));
}

TEST(Shapley, RefusesWhatIsNoPermutation) {
  ShapleyEstimate shapley(2);
  const std::vector<Index> order = {0, 1}, twice = {1, 1}, longer = {0, 1, 2};
  const Values v = {0, 1, 2}, other = {0, 1, 3}, nan = {0, NAN, 2};
  expect_refusal([] { ShapleyEstimate(0); }, "at least 1 component, found 0");
  expect_refusal([&] { shapley.add(twice, v, v); }, "component 1 occurs twice");
  expect_refusal([&] { shapley.add(longer, v, v); }, "2 components names 3");
  expect_refusal([&] { shapley.add(order, Values{0, 1}, v); }, "has 3 values, found 2");
  expect_refusal([&] { shapley.add(order, v, nan); }, "with 1 components removed is nan");
  expect_refusal([&] { shapley.add(order, v, other); }, "both must agree");
  EXPECT_EQ(shapley.pairs(), 0);
  shapley.add(order, v, v);
  expect_refusal([&] { shapley.standard_errors(); }, "at least 2 pairs of permutations, found 1");
}

// --- Effects

TEST(Effects, PerUnit) {
  const UnitEffects effects = unit_effects(6, {3, 2'000'000, 0.5});
  EXPECT_EQ(effects.per_layer, 2);
  EXPECT_EQ(effects.per_million_params, 3);
  EXPECT_EQ(effects.per_second, 12);
  const UnitEffects slower = unit_effects(6, {0, 0, -0.1});  // a noise edit removes nothing and costs time
  EXPECT_TRUE(std::isnan(slower.per_layer) && std::isnan(slower.per_million_params) &&
              std::isnan(slower.per_second));
  expect_refusal([] { unit_effects(1, {-1, 0, 0}); }, "-1 layers");
}

TEST(Effects, FrontIsWhatNoPointDominates) {
  testing::Numbers numbers(10);
  Values harms, savings;
  for (int i = 0; i < 300; ++i) {  // on a coarse grid, so that ties occur
    harms.push_back(std::floor(numbers.uniform(0, 20)));
    savings.push_back(std::floor(harms.back() * 0.7 + numbers.uniform(0, 12)));
  }
  const std::vector<bool> front = pareto_front(harms, savings);
  std::size_t count = 0;
  for (std::size_t i = 0; i < harms.size(); ++i) {
    bool beaten = false;
    for (std::size_t j = 0; j < harms.size(); ++j)
      beaten = beaten || (harms[j] <= harms[i] && savings[j] >= savings[i] &&
                          (harms[j] < harms[i] || savings[j] > savings[i]));
    EXPECT_EQ(front[i], !beaten) << i;
    count += front[i];
  }
  EXPECT_GT(count, 5u);
  expect_refusal([] { pareto_front(Values{1}, Values{}); }, "1 harms but 0 savings");
  expect_refusal([] { pareto_front(Values{NAN}, Values{1}); }, "point 0");
}

}  // namespace
}  // namespace plait::ablate
