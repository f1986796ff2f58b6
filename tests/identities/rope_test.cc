#include "layers/attention/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/identities/tolerance.h"

namespace plait {
namespace {

using testing::kEps;
using testing::Numbers;

std::optional<RopeSettings> read(const Json& rope, Index head_dim) {
  Config config("tested", {{"rope", rope}}, {});
  const auto settings = read_rope(config, head_dim);
  config.finish();
  return settings;
}

RopeSettings settings_of(const Json& rope, Index head_dim = 16) { return *read(rope, head_dim); }

std::vector<Json> scalings() {
  return {
      {{"type", "linear"}, {"factor", 2.5}},
      {{"type", "llama3"},
       {"factor", 8},
       {"low_freq_factor", 1},
       {"high_freq_factor", 4},
       {"original_max_position_embeddings", 8192}},
      {{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 4096}},
      {{"type", "yarn"},
       {"factor", 40},
       {"original_max_position_embeddings", 4096},
       {"beta_fast", 24},
       {"beta_slow", 2},
       {"mscale", 0.7},
       {"mscale_all_dim", 1.1},
       {"truncate", false}},
  };
}

TEST(Rope, FrequenciesMeetLibmToAFewUlp) {
  for (const double theta : {500.0, 1e4, 5e5, 1e7})
    for (const Index dim : {2, 6, 16, 64, 128, 250}) {
      const Rotary rope = make_rope(settings_of({{"theta", theta}}, dim));
      ASSERT_EQ(rope.dim(), dim);
      for (Index i = 0; i < dim / 2; ++i) {
        const double expected = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
        // The exponent is up to ln(1e7) = 16, and its rounding errors become relative errors of the power.
        EXPECT_NEAR(rope.frequencies()[static_cast<std::size_t>(i)] / expected, 1,
                    4 * 16 * std::numeric_limits<double>::epsilon());
      }
    }
  for (const double x : {1e-300, 1e-5, 0.5, 0.70710678, 1.0, 1.5, 10.0, 1e7, 1e300})
    EXPECT_NEAR(portable_log(x), std::log(x),
                2 * std::numeric_limits<double>::epsilon() * std::abs(std::log(x)) + 1e-16);
  for (const double x : {-600.0, -20.5, -1.0, -1e-3, 0.0, 0.3, 1.0, 33.0, 600.0})
    EXPECT_NEAR(portable_exp(x) / std::exp(x), 1, 4 * std::numeric_limits<double>::epsilon());
}

TEST(Rope, ScaledFrequenciesMeetTheTwin) {
  for (const Json& scaling : scalings()) {
    const RopeSettings settings = settings_of({{"theta", 10000}, {"scaling", scaling}}, 128);
    const Rotary rope = make_rope(settings);
    const std::vector<double> expected = rope_frequencies(settings);
    for (std::size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(rope.frequencies()[i] / expected[i], 1, 1e-13) << scaling << " channel " << i;
    EXPECT_FLOAT_EQ(rope.factor(), static_cast<float>(rope_attention_factor(settings)));
  }
}

// Llama 3.1: base 500,000, head 128. Wavelengths below 8192 / 4 stay, above 8192 / 1 are divided by 8.
TEST(Rope, Llama3KeepsShortAndDividesLongWavelengths) {
  const Json scaling = scalings()[1];
  const Rotary plain = make_rope(settings_of({{"theta", 500000}}, 128));
  const Rotary scaled = make_rope(settings_of({{"theta", 500000}, {"scaling", scaling}}, 128));
  Index kept = 0, divided = 0, between = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    const double wavelength = 2 * std::numbers::pi / plain.frequencies()[i];
    const double ratio = plain.frequencies()[i] / scaled.frequencies()[i];
    if (wavelength < 2048) {
      EXPECT_EQ(ratio, 1) << i;
      ++kept;
    } else if (wavelength > 8192) {
      EXPECT_EQ(ratio, 8) << i;
      ++divided;
    } else {
      const double smooth = (8192 / wavelength - 1) / 3;
      EXPECT_NEAR(1 / ratio, (1 - smooth) / 8 + smooth, 1e-12) << i;
      ++between;
    }
  }
  EXPECT_EQ(kept + divided + between, 64);
  EXPECT_GT(kept, 0);
  EXPECT_GT(divided, 0);
  EXPECT_GT(between, 0);
}

TEST(Rope, YarnFactorAndCorrectionRange) {
  // factor 4: 0.1 ln 4 + 1; base 10000, dim 128, context 4096: corrections 20.9.. -> 20 and 45.03.. -> 46.
  const Rotary plain = make_rope(settings_of({{"theta", 10000}}, 128));
  const Rotary yarn = make_rope(settings_of({{"theta", 10000}, {"scaling", scalings()[2]}}, 128));
  EXPECT_FLOAT_EQ(yarn.factor(), 1.1386294f);
  for (std::size_t i = 0; i < 64; ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - 20) / (46 - 20), 0.0, 1.0);
    EXPECT_NEAR(yarn.frequencies()[i] / plain.frequencies()[i], ramp / 4 + 1 - ramp, 1e-12) << i;
  }
  // DeepSeek's pair of slopes; equal slopes cancel.
  Json scaling = scalings()[3];
  EXPECT_FLOAT_EQ(make_rope(settings_of({{"theta", 10000}, {"scaling", scaling}}, 64)).factor(),
                  static_cast<float>((0.07 * std::log(40.0) + 1) / (0.11 * std::log(40.0) + 1)));
  scaling["mscale_all_dim"] = 0.7;
  EXPECT_EQ(make_rope(settings_of({{"theta", 10000}, {"scaling", scaling}}, 64)).factor(), 1);
  scaling["attention_factor"] = 1.5;
  EXPECT_EQ(make_rope(settings_of({{"theta", 10000}, {"scaling", scaling}}, 64)).factor(), 1.5);
  scaling = scalings()[2];
  scaling["factor"] = 0.5;
  EXPECT_EQ(make_rope(settings_of({{"theta", 10000}, {"scaling", scaling}}, 64)).factor(), 1);
}

TEST(Rope, RotatesLikeTheTwinAtAnyPosition) {
  for (const char* layout : {"half_split", "interleaved"})
    for (const double position : {0.0, 1.0, 777.0, 1e6, -3.0, 2.5}) {
      const RopeSettings settings = settings_of({{"theta", 10000}, {"dim", 10}, {"layout", layout}}, 14);
      const std::vector<float> start = Numbers(3).normals(3 * 2 * 14);
      std::vector<float> rows = start;
      make_rope(settings).apply(View<float>(rows.data(), 3, 28), 2, position, {});
      std::vector<double> expected(start.begin(), start.end());
      for (Index head = 0; head < 6; ++head)
        rotate_head(settings, position + static_cast<double>(head / 2), expected.data() + head * 14);
      testing::expect_near(rows, expected, 4, 1);
      for (Index head = 0; head < 6; ++head)
        for (Index c = 10; c < 14; ++c)
          EXPECT_EQ(rows[static_cast<std::size_t>(head * 14 + c)],
                    start[static_cast<std::size_t>(head * 14 + c)]);
    }
}

TEST(Rope, LayoutsPairTheChannelsTheyName) {
  // One frequency of 1 and a quarter turn: (1, 0) -> (0, 1) in the pair.
  std::vector<float> x = {1, 0, 0, 0};
  const double quarter = std::numbers::pi / 2;
  Rotary({1, 0}, Rotary::Layout::half_split).apply(View<float>(x.data(), 1, 4), 1, quarter, {});
  EXPECT_NEAR(x[2], 1, kEps);
  x = {1, 0, 0, 0};
  Rotary({1, 0}, Rotary::Layout::interleaved).apply(View<float>(x.data(), 1, 4), 1, quarter, {});
  EXPECT_NEAR(x[1], 1, kEps);
}

TEST(Rope, ARowIsTheSameAloneAndWithPositionsGiven) {
  const Rotary rope = make_rope(settings_of({{"theta", 10000}}));
  const std::vector<float> start = Numbers(4).normals(40 * 32);
  std::vector<float> together = start, alone = start, listed = start;
  std::vector<Index> positions;
  for (Index r = 0; r < 40; ++r) positions.push_back(100 + r);
  rope.apply(View<float>(together.data(), 40, 32), 2, 100, {Numerics::exact, Isa::automatic, 3});
  for (Index r = 0; r < 40; ++r)
    rope.apply(View<float>(alone.data() + r * 32, 1, 32), 2, static_cast<double>(100 + r), {});
  rope.apply(View<float>(listed.data(), 40, 32), 2, positions, {});
  EXPECT_TRUE(testing::same_bits(together, alone));
  EXPECT_TRUE(testing::same_bits(together, listed));
}

TEST(Rope, DotProductsDependOnDistanceOnly) {
  const Rotary rope = make_rope(settings_of({{"theta", 10000}}, 64));
  const std::vector<float> start = Numbers(5).normals(128);
  const auto dot_at = [&](double shift) {
    std::vector<float> q(start.begin(), start.begin() + 64), k(start.begin() + 64, start.end());
    rope.apply(View<float>(q.data(), 1, 64), 1, shift + 9, {});
    rope.apply(View<float>(k.data(), 1, 64), 1, shift, {});
    double sum = 0;
    for (std::size_t c = 0; c < 64; ++c) sum += double{q[c]} * double{k[c]};
    return sum;
  };
  // |q| |k| is about 64, each product is off by a few eps.
  for (const double shift : {1.0, 100.0, 1e5, 1e6}) EXPECT_NEAR(dot_at(shift), dot_at(0), 64 * 4 * kEps);
}

TEST(Rope, RefusesWhatItCannotMean) {
  EXPECT_THROW(read({{"theta", 10000}, {"dim", 5}}, 16), Error);
  EXPECT_THROW(read({{"theta", 10000}, {"dim", 18}}, 16), Error);
  EXPECT_THROW(read({{"theta", 1}}, 16), Error);
  EXPECT_THROW(read({{"theta", 10000}, {"thetta", 1}}, 16), Error);
  EXPECT_THROW(read(Json::object(), 16), Error);
  EXPECT_THROW(read({{"theta", 10000}, {"scaling", {{"type", "ntk"}, {"factor", 2}}}}, 16), Error);
  EXPECT_THROW(read({{"theta", 10000}, {"scaling", {{"type", "linear"}, {"factor", 0}}}}, 16), Error);
  EXPECT_THROW(
      read({{"theta", 10000}, {"scaling", {{"type", "linear"}, {"factor", 2}, {"beta_fast", 3}}}}, 16),
      Error);
}

}  // namespace
}  // namespace plait
