#include "runtime/run/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/random.h"

namespace plait {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// How often each token comes in `draws` draws at positions 0, 1, 2, ...
std::vector<Index> counts(const SamplerSettings& settings, std::span<const float> logits, Index draws,
                          std::span<const Token> history = {}) {
  const Sampler sampler(settings);
  std::vector<Index> count(logits.size());
  for (Index p = 0; p < draws; ++p) ++count[static_cast<std::size_t>(sampler.draw(logits, 3, p, history))];
  return count;
}

// Counts must be binomial: within five standard deviations of draws * probability (a fixed seed: the bound
// holds or does not, once and for all; a wrong probability of 1 % more or less would miss it), zero where it
// is zero.
void expect_probabilities(const std::vector<Index>& count, const std::vector<double>& probability) {
  const auto draws = static_cast<double>(std::accumulate(count.begin(), count.end(), Index{0}));
  ASSERT_EQ(count.size(), probability.size());
  for (std::size_t i = 0; i < count.size(); ++i) {
    const double expected = draws * probability[i];
    EXPECT_NEAR(static_cast<double>(count[i]), expected, 5 * std::sqrt(expected * (1 - probability[i])))
        << "token " << i;
  }
}

std::vector<double> softmax(const std::vector<double>& logits) {
  std::vector<double> p;
  double sum = 0;
  for (double x : logits) sum += p.emplace_back(std::exp(x));
  for (double& x : p) x /= sum;
  return p;
}

// The vectors published with Random123 (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Uniform, EveryArgumentCountsAndTheRangeIsHalfOpen) {
  EXPECT_NE(uniform_draw(1, 0, 0), uniform_draw(2, 0, 0));
  EXPECT_NE(uniform_draw(1, 0, 0), uniform_draw(1, 1, 0));
  EXPECT_NE(uniform_draw(1, 0, 0), uniform_draw(1, 0, 1));
  EXPECT_NE(uniform_draw(1, 2, 3), uniform_draw(1, 3, 2));
  EXPECT_NE(uniform_draw(1, 0, 0), uniform_draw(std::uint64_t{1} << 32, 0, 0));
  EXPECT_EQ(uniform_draw(0, 0, 0), static_cast<double>((0xe169c58d6627e8d5ull) >> 11) / 9007199254740992.0);
  // The mean of n uniforms has deviation 1 / sqrt(12 n).
  constexpr Index kDraws = 100000;
  double sum = 0;
  for (Index p = 0; p < kDraws; ++p) {
    const double u = uniform_draw(9, 4, static_cast<std::uint64_t>(p));
    ASSERT_TRUE(0 <= u && u < 1);
    sum += u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 5 / std::sqrt(12.0 * kDraws));
}

TEST(Sampler, DrawsTheSoftmaxAtATemperature) {
  const std::vector<float> logits = {0.5f, -1.0f, 2.0f, kNever, 1.0f};
  expect_probabilities(counts({.seed = 5}, logits, 40000), softmax({0.5, -1, 2, -INFINITY, 1}));
  expect_probabilities(counts({.temperature = 2, .seed = 5}, logits, 40000),
                       softmax({0.25, -0.5, 1, -INFINITY, 0.5}));
  // Far apart: nothing overflows.
  EXPECT_EQ(counts({.temperature = 1e-3}, std::vector<float>{-3e38f, 3e38f, 0}, 100)[1], 100);
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  const Sampler greedy({.temperature = 0});
  EXPECT_EQ(greedy.draw(std::vector<float>{1, 3, 3, 2}, 0, 0, {}), 1);
  EXPECT_EQ(greedy.draw(std::vector<float>{kNever, kNever, -5}, 7, 9, {}), 2);
  // The penalty comes before the choice.
  const Sampler penalised({.temperature = 0, .repetition_penalty = 2});
  EXPECT_EQ(penalised.draw(std::vector<float>{1, 3, 2, 0}, 0, 0, std::vector<Token>{1}), 2);
}

TEST(Sampler, TopKKeepsExactlyKWithTiesToTheLowerIndex) {
  const std::vector<float> logits = {1, 2, 1, 1, 0};
  expect_probabilities(counts({.top_k = 3}, logits, 20000),
                       {softmax({1, 2, 1})[0], softmax({1, 2, 1})[1], softmax({1, 2, 1})[2], 0, 0});
  EXPECT_EQ(counts({.top_k = 1}, logits, 500)[1], 500);
  EXPECT_EQ(counts({.top_k = 5}, logits, 500), counts({.top_k = 0}, logits, 500));
  EXPECT_EQ(counts({.top_k = 50}, logits, 500), counts({.top_k = 0}, logits, 500));
}

TEST(Sampler, TopPKeepsTheLikeliestUntilTheirSumReachesIt) {
  // Probabilities 0.5, 0.25, 0.125, 0.125: powers of two, so the sums are exact up to the rounding of log.
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.25f), std::log(0.125f)};
  expect_probabilities(counts({.top_p = 0.8}, logits, 20000), {1 / 7.0, 4 / 7.0, 2 / 7.0, 0});
  expect_probabilities(counts({.top_p = 0.7}, logits, 20000), {0, 2 / 3.0, 1 / 3.0, 0});
  EXPECT_EQ(counts({.top_p = 0.4}, logits, 500)[1], 500);
  EXPECT_EQ(counts({.top_p = 1e-300}, logits, 500)[1], 500);  // at least one token stays
}

TEST(Sampler, MinPIsRelativeToTheLikeliest) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.3f), std::log(0.1f)};
  expect_probabilities(counts({.min_p = 0.25}, logits, 20000), {0, 5 / 8.0, 3 / 8.0, 0});
  expect_probabilities(counts({.min_p = 0.19}, logits, 20000), {0.1, 0.5, 0.3, 0.1});
  EXPECT_EQ(counts({.min_p = 0.7}, logits, 500)[1], 500);
}

TEST(Sampler, FiltersFollowEachOtherOnRenormalisedProbabilities) {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  // Of {4, 3, 2} / 9 the first has 0.444 and the first two 0.778: top-p 0.75 keeps two; of all four it would
  // keep three.
  expect_probabilities(counts({.top_p = 0.75, .top_k = 3}, logits, 20000), {4 / 7.0, 3 / 7.0, 0, 0});
  expect_probabilities(counts({.top_p = 0.75}, logits, 20000), {4 / 9.0, 3 / 9.0, 2 / 9.0, 0});
  // Temperature comes before the cut: at 1/2 the probabilities are 16, 9, 4, 1 of 30.
  expect_probabilities(counts({.temperature = 0.5, .top_p = 0.75}, logits, 20000),
                       {16 / 25.0, 9 / 25.0, 0, 0});
  // min-p comes after temperature too: 4 / 16 is below 0.3, at temperature 1 it is 2 / 4.
  expect_probabilities(counts({.temperature = 0.5, .min_p = 0.3}, logits, 20000),
                       {16 / 25.0, 9 / 25.0, 0, 0});
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogitsOnce) {
  const std::vector<float> logits = {1.5f, -0.5f, 0.5f, 0};
  const std::vector<Token> history = {0, 1, 0, 3, 0};
  expect_probabilities(counts({.repetition_penalty = 1.5}, logits, 40000, history),
                       softmax({1, -0.75, 0.5, 0}));
  expect_probabilities(counts({.repetition_penalty = 0.5}, logits, 40000, history),
                       softmax({3, -0.25, 0.5, 0}));
}

TEST(Sampler, ADrawDependsOnSeedStreamAndPositionOnly) {
  std::vector<float> logits(500);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  const Sampler sampler({.temperature = 0.8, .top_p = 0.9, .top_k = 100, .seed = 77});
  std::vector<Token> forward, backward(64);
  for (Index p = 0; p < 64; ++p) forward.push_back(sampler.draw(logits, 5, p, {}));
  const Sampler copy = sampler;
  for (Index p = 63; p >= 0; --p) backward[static_cast<std::size_t>(p)] = copy.draw(logits, 5, p, {});
  EXPECT_EQ(forward, backward);
  Index differ = 0;
  for (Index p = 0; p < 64; ++p)
    differ += sampler.draw(logits, 6, p, {}) != forward[static_cast<std::size_t>(p)];
  EXPECT_GT(differ, 32);
  // A shift of all logits changes nothing.
  for (float& x : logits) x += 1024;
  const std::vector<float> shifted = logits;
  for (float& x : logits) x -= 1024;  // the rounding of the shift, without the shift
  for (Index p = 0; p < 64; ++p) EXPECT_EQ(sampler.draw(shifted, 5, p, {}), sampler.draw(logits, 5, p, {}));
}

TEST(Sampler, EveryTokenOfALargeVocabularyIsReachable) {
  // Equal logits rank by index, so the draw is the token whose interval [i, i + 1) / n holds the uniform.
  const std::vector<float> logits(100000, 1.25f);
  const Sampler sampler({.seed = 1});
  for (Index p = 0; p < 20; ++p)
    EXPECT_EQ(sampler.draw(logits, 0, p, {}),
              static_cast<Token>(uniform_draw(1, 0, static_cast<std::uint64_t>(p)) * 100000));
}

TEST(Sampler, RefusesBadSettings) {
  const double nan = std::nan("");
  for (const SamplerSettings& bad : std::vector<SamplerSettings>{{.temperature = -0.1},
                                                                 {.temperature = nan},
                                                                 {.temperature = INFINITY},
                                                                 {.top_p = 0},
                                                                 {.top_p = 1.01},
                                                                 {.top_p = nan},
                                                                 {.min_p = -0.1},
                                                                 {.min_p = 1},
                                                                 {.min_p = nan},
                                                                 {.repetition_penalty = 0},
                                                                 {.repetition_penalty = nan},
                                                                 {.top_k = -1}})
    EXPECT_THROW(Sampler{bad}, Error);
  try {
    Sampler sampler({.top_p = 1.5});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "sampler setting 'top_p' must be above 0 and at most 1, found 1.5");
  }
}

TEST(Sampler, RefusesLogitsAndHistoriesItCannotUse) {
  const Sampler sampler({.repetition_penalty = 2});
  EXPECT_THROW(sampler.draw(std::vector<float>{0, std::nanf("")}, 0, 0, {}), Error);
  EXPECT_THROW(sampler.draw(std::vector<float>{0, INFINITY}, 0, 0, {}), Error);
  EXPECT_THROW(sampler.draw(std::vector<float>{kNever, kNever}, 0, 0, {}), Error);
  EXPECT_THROW(sampler.draw(std::vector<float>{}, 0, 0, {}), Error);
  EXPECT_THROW(sampler.draw(std::vector<float>{0, 1}, 0, 0, std::vector<Token>{2}), Error);
  EXPECT_THROW(sampler.draw(std::vector<float>{0, 1}, 0, 0, std::vector<Token>{-1}), Error);
}

TEST(Sampler, SettingsSurviveJson) {
  const SamplerSettings settings = {.temperature = 0.7,
                                    .top_p = 0.95,
                                    .min_p = 0.05,
                                    .repetition_penalty = 1.1,
                                    .top_k = 40,
                                    .seed = 0xfedcba9876543210ull};
  EXPECT_EQ(parse_sampler(Json::parse(to_json(settings).dump())), settings);
  EXPECT_EQ(parse_sampler(Json::object()), SamplerSettings());
  for (const char* bad : {R"({"topk": 1})", R"({"top_k": 1.5})", R"({"top_k": -1})", R"({"seed": -1})",
                          R"({"top_p": "1"})", R"({"temperature": -1})", "[]", "3"})
    EXPECT_THROW(parse_sampler(Json::parse(bad)), Error) << bad;
}

}  // namespace
}  // namespace plait
