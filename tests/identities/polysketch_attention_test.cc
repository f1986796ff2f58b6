#include <gtest/gtest.h>

#include <cmath>

#include "layers/reference/polysketch_attention.h"
#include "layers/reference/recurrence.h"
#include "tests/identities/attention_rows.h"

namespace plait {
namespace {

using namespace testing;

constexpr const char* kKind = "polysketch_attention";
constexpr Index kRows = 100, kWidth = 24;

Surroundings surroundings(Index width = kWidth) {
  Surroundings s;
  s.width = width;
  return s;
}

OneKind make(const Json& settings, const OneKind::Values& values) {
  return OneKind(kKind, settings, surroundings(), values);
}
OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values(kKind, settings, surroundings(), 1);
}

// Every form, folded after every token, in between and never. What the state gives is a sum of squared
// products of both signs, as in power_retention at degree 4: its factor.
TEST(PolysketchAttention, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const std::string& example : Registry::builtin().find(kKind).examples)
    for (const Index block : {1, 20, 200}) {
      Json settings = Json::parse(example);
      settings["block"] = block;
      SCOPED_TRACE(settings.dump());
      const OneKind kind = make(settings, random_values(settings));
      const std::vector<float> whole = kind.run(input);
      expect_near(whole, kind.twin(input), 32, kWidth + 300 + kRows);
      EXPECT_TRUE(same_bits(kind.run(input, {.split = {1, 20, 33}}), whole));
    }
}

// S and Z of the products of two channels of a sketch, token by token, are the quadratic formula.
TEST(PolysketchAttention, RecurrenceIsTheQuadraticForm) {
  constexpr Index kR = 7, kD = 8;
  const Json settings = {{"num_heads", 1}, {"head_dim", kD}, {"r", kR}, {"rope", {{"theta", 100}}}};
  const OneKind::Values values = random_values(settings);
  const KindInput input = random_input(kRows, kWidth, 3);
  Config config("tested", settings, surroundings());
  const PolysketchAttentionSettings s = read_polysketch_attention(config);
  const Parameters parameters = parameters_of(polysketch_attention_tensors(s), values);
  const reference::Weights weights(parameters);
  const std::vector<double> wide = widen(input.inputs[0]);
  const View<const double> x(wide.data(), kRows, kWidth);
  const ProjectionTwin::Rows rows = ProjectionTwin(s.projection, parameters).run(x);
  const auto sketch = [&](const std::vector<double>& raw) {
    reference::Rows head(kRows, kD);
    head.data = raw;
    reference::layer_normalise(head, kD, 1e-5, weights["qk_norm"], weights["qk_norm_bias"]);
    reference::Rows a = weights.project("g1", head.view());
    const reference::Rows b = weights.project("g2", head.view());
    for (std::size_t i = 0; i < a.data.size(); ++i) a.data[i] *= b.data[i] / kR;
    return a;
  };
  const reference::Rows q = sketch(rows.q), k = sketch(rows.k);
  std::vector<double> S(kR * kR * kD), Z(kR * kR);
  reference::Rows o(kRows, kD);
  for (Index t = 0; t < kRows; ++t) {
    double mass = 0;
    for (Index a = 0; a < kR; ++a)
      for (Index b = 0; b < kR; ++b) {
        const auto at = static_cast<std::size_t>(a * kR + b);
        Z[at] += k(t, a) * k(t, b);
        mass += q(t, a) * q(t, b) * Z[at];
        for (Index c = 0; c < kD; ++c) {
          double& state = S[at * kD + static_cast<std::size_t>(c)];
          state += k(t, a) * k(t, b) * rows.v[static_cast<std::size_t>(t * kD + c)];
          o(t, c) += q(t, a) * q(t, b) * state;
        }
      }
    for (Index c = 0; c < kD; ++c) o(t, c) /= 1 + mass;
  }
  EXPECT_LE(relative_error(make(settings, values).twin(input), weights.project("o", o.view()).data), 1e-12);
}

// Without sketch: polynomial attention of degree 4 with one_plus_sum, whose scale takes the norm's place. A
// gain of 0 and a bias make every normed head that bias.
TEST(PolysketchAttention, WithoutSketchWeighsTheFourthPower) {
  const Json settings = {{"num_heads", 1}, {"head_dim", 4}, {"value_head_dim", kWidth}, {"sketch", "none"}};
  OneKind::Values values = random_values(settings);
  values["qk_norm"] = {0, 0, 0, 0};
  values["qk_norm_bias"] = {0.5f, 0.25f, -0.5f, 0.75f};  // its square: 1.125
  values["v"] = values["o"] = unit_matrix(kWidth);
  const KindInput input = random_input(10, kWidth, 4);
  const std::vector<double> y = make(settings, values).twin(input);
  const double weight = std::pow(1.125, 4);
  for (Index i = 0; i < 10; ++i)
    for (Index c = 0; c < kWidth; ++c) {
      double sum = 0;
      for (Index j = 0; j <= i; ++j)
        sum += weight * static_cast<double>(input.inputs[0][static_cast<std::size_t>(j * kWidth + c)]);
      EXPECT_NEAR(y[static_cast<std::size_t>(i * kWidth + c)],
                  sum / (1 + static_cast<double>(i + 1) * weight), 1e-12);
    }
}

// The weight of one key whose normed vectors have cosine c with the query's: w of y = w v / (1 + w), v = 1.
// The token before the query holds the key and has the only value.
class OneWeight {
 public:
  OneWeight(Json more, double cosine) : settings_(std::move(more)) {
    settings_.update({{"num_heads", 1}, {"head_dim", 4}, {"value_head_dim", 1}, {"block", 1}});
    values_ = OneKind::random_values(kKind, settings_, surroundings(8), 1);
    for (const char* name : {"q", "k", "v", "o"}) values_[name].assign(values_[name].size(), 0.0f);
    for (Index c = 0; c < 4; ++c) values_["q"][static_cast<std::size_t>(c * 8 + c)] = 1;
    for (Index c = 0; c < 4; ++c) values_["k"][static_cast<std::size_t>(c * 8 + c)] = 1;
    values_["v"][4] = 1;
    values_["o"][0] = 1;
    if (settings_.value("sketch", "random") == "random") {
      values_["qk_norm"].assign(4, 1.0f);
      values_["qk_norm_bias"].assign(4, 0.0f);
    }
    // Normed already: mean 0, mean square 1, products 4 cosine. The query's own key weighs too, with value 0,
    // so the key alone is one row and the same vector as query another.
    const double sine = std::sqrt(1 - cosine * cosine);
    key_ = {1, -1, 1, -1};
    for (Index c = 0; c < 4; ++c)
      query_.push_back(cosine * key_[static_cast<std::size_t>(c)] + sine * (c < 2 ? 1 : -1));
  }

  // Of q for k, from the outputs: w / (1 + w + own), own from the query's token alone.
  double draw(std::uint64_t seed) {
    Numbers numbers(seed);
    for (const char* name : {"g1", "g2"})
      for (float& g : values_[name]) g = static_cast<float>(numbers.normal());
    const OneKind kind(kKind, settings_, surroundings(8), values_);
    const double own = alone(kind, query_);
    KindInput input;
    input.rows = 2;
    input.inputs.assign(1, std::vector<float>(16, 0.0f));
    for (std::size_t c = 0; c < 4; ++c) {
      input.inputs[0][c] = static_cast<float>(key_[c]);
      input.inputs[0][8 + c] = static_cast<float>(query_[c]);
    }
    input.inputs[0][4] = 1;
    const double share = kind.twin(input)[8];
    return share * (1 + own) / (1 - share);
  }

 private:
  static double alone(const OneKind& kind, const std::vector<double>& vector) {
    KindInput input;
    input.rows = 1;
    input.inputs.assign(1, std::vector<float>(8, 0.0f));
    for (std::size_t c = 0; c < 4; ++c) input.inputs[0][c] = static_cast<float>(vector[c]);
    input.inputs[0][4] = 1;
    const double share = kind.twin(input)[0];
    return share / (1 - share);
  }

  Json settings_;
  OneKind::Values values_;
  std::vector<double> key_, query_;
};

// 6.3: E[(q'.k')^2] r^2 = |q|^4 |k|^4 (c^4 + ((1 + 2 c^2)^2 - c^4) / r). Within five standard errors.
// TESTED at r = 64 as ratios to (q.k)^4: 1.125, 1.55 and 163 by the formula, 1.11, 1.58 and 178 measured.
TEST(PolysketchAttention, SecondMomentOfTheSketch) {
  const std::pair<double, double> ratios[] = {{1.0, 1.125}, {0.5, 1.55}, {0.1, 163}};
  for (const auto& [r, draws] : {std::pair<Index, std::uint64_t>{16, 3000}, {64, 1000}})
    for (const auto& [c, ratio] : ratios) {
      OneWeight pair({{"r", r}, {"sketch_rescale", true}}, c);
      double sum = 0, squares = 0;
      for (std::uint64_t seed = 1; seed <= draws; ++seed) {
        const double w = pair.draw(seed);
        sum += w;
        squares += w * w;
      }
      const double n = static_cast<double>(draws), mean = sum / n,
                   error = std::sqrt((squares / n - mean * mean) / n);
      const double c4 = std::pow(c, 4),
                   expected = 256 * (c4 + (std::pow(1 + 2 * c * c, 2) - c4) / static_cast<double>(r));
      EXPECT_LE(std::abs(mean - expected), 5 * error) << c << ": " << mean << " for " << expected;
      EXPECT_LE(error, 0.2 * expected);
      if (r == 64) {
        EXPECT_NEAR(expected / (256 * c4) / ratio, 1, 0.005);
      }
    }
}

TEST(PolysketchAttention, RescaleTakesBackTheSquareOfR) {
  constexpr Index kR = 16;
  OneWeight plain({{"r", kR}}, 0.5), rescaled({{"r", kR}, {"sketch_rescale", true}}, 0.5);
  EXPECT_NEAR(rescaled.draw(7), plain.draw(7) * kR * kR, 1e-9 * rescaled.draw(7));
}

// |q'.k'| <= r^2: a sketch's columns are at most sqrt(r).
TEST(PolysketchAttention, LearnedSketchesAreBounded) {
  constexpr Index kR = 4;
  const Json settings = {
      {"num_heads", 1}, {"head_dim", 8}, {"value_head_dim", kWidth}, {"sketch", "learned"}, {"r", kR}};
  OneKind::Values values = random_values(settings);
  for (auto& [name, w] : values)
    if (name.find("_down_2") != std::string::npos)
      for (float& x : w) x *= 1e4f;
  values["k"] = values["q"];
  values["v"] = values["o"] = unit_matrix(kWidth);
  KindInput input = random_input(1, kWidth, 5);
  input.inputs[0].assign(kWidth, 1.0f);
  const double share = make(settings, values).twin(input)[0];  // w / (1 + w)
  const double bound = std::pow(kR, 4);
  EXPECT_LE(share, bound / (1 + bound) + 1e-12);
  EXPECT_GE(share, 0.99 * bound / (1 + bound));
}

TEST(PolysketchAttention, Refusals) {
  const auto refusal = [](const Json& more) {
    Json settings = {{"num_heads", 2}, {"head_dim", 8}};
    settings.update(more);
    Config config("blocks.0.mixer", settings, surroundings());
    try {
      read_polysketch_attention(config);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refusal({{"qk_norm", Json::object()}}).find("behind rope"), std::string::npos);
  EXPECT_NE(refusal({{"sketch", "none"}, {"mixed", true}}).find("mixed"), std::string::npos);
  EXPECT_NE(refusal({{"sketch", "learned"}, {"sketch_rescale", true}}).find("sketch_rescale"),
            std::string::npos);
  EXPECT_NE(refusal({{"r", 0}}).find("r"), std::string::npos);
}

}  // namespace
}  // namespace plait
