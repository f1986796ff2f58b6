#include "layers/reference/polynomial_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "layers/attention/power_features.h"
#include "tests/identities/attention_rows.h"

namespace plait {
namespace {

using testing::expect_near;
using testing::HeadRows;
using testing::inner_edit;
using testing::kEps;
using testing::KindInput;
using testing::Numbers;
using testing::OneKind;
using testing::random_input;
using testing::same_bits;

constexpr Index kRows = 150, kWidth = 24;  // past four chunks, two key blocks and a key span
constexpr const char* kKind = "polynomial_attention";
// A weight's relative error is up to 4 times its logit's (p = 4); the longest sum has 330 features (8
// channels, p = 4).
constexpr double kStages = 4, kTerms = 330;

Surroundings surroundings(Index chunk = 32) {
  Surroundings s;
  s.width = kWidth;
  s.grids = {chunk, 64, 128};
  return s;
}

Json with(Json settings, const char* key, const Json& value) {
  settings[key] = value;
  return settings;
}

std::vector<const char*> evaluations() { return {"recurrent", "quadratic"}; }

// The test's own double loop, one weight at a time, with what edits change.
class DoubleLoop {
 public:
  DoubleLoop(const Json& settings, const OneKind::Values& values, const KindInput& input) : input_(input) {
    Config config("tested", settings, surroundings());
    settings_ = read_polynomial_attention(config);
    const Parameters parameters = testing::parameters_of(polynomial_attention_tensors(settings_), values);
    const std::vector<double> x = testing::widen(input.inputs[0]);
    heads_ = {settings_.projection,
              ProjectionTwin(settings_.projection, parameters).run({x.data(), input.rows, kWidth})};
    o_ = to_double(parameters.tensor("o"));
    const Index heads = settings_.projection.num_heads;
    g_.resize(static_cast<std::size_t>(input.rows * heads));
    if (parameters.has("decay")) {
      g_ = project({x.data(), input.rows, kWidth}, to_double(parameters.tensor("decay")),
                   to_double(parameters.tensor("decay_bias")), heads);
      for (double& g : g_) g = std::log(1 / (1 + std::exp(-g))) / settings_.decay_temperature;
    }
  }

  std::function<bool(Index j, Index h)> written = [](Index, Index) { return true; };
  std::function<double(Index i, Index h)> factor = [](Index, Index) { return 1.0; };
  std::function<double(Index t, Index h, double g)> decay = [](Index, Index, double g) { return g; };
  HeadRows& heads() { return heads_; }

  std::vector<double> output() const {
    const ProjectionSettings& p = settings_.projection;
    const Index dv = p.value_head_dim, columns = p.num_heads * dv;
    std::vector<double> all(static_cast<std::size_t>(input_.rows * columns));
    for (Index i = 0; i < input_.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h) attend(i, h, all.data() + i * columns + h * dv);
    return project({all.data(), input_.rows, columns}, o_, {}, p.width);
  }

 private:
  void attend(Index i, Index h, double* out) const {
    const Index dv = settings_.projection.value_head_dim;
    double sum = 0;
    for (Index j = 0; j <= i; ++j) {
      if (!written(j, h)) continue;
      double log_decay = 0;
      for (Index t = j + 1; t <= i; ++t)
        log_decay += decay(t, h, g_[static_cast<std::size_t>(t * settings_.projection.num_heads + h)]);
      double w = std::exp(log_decay);
      for (Index e = 0; e < settings_.degree; ++e) w *= settings_.logit_scale * heads_.dot(i, j, h);
      sum += w;
      for (Index c = 0; c < dv; ++c) out[c] += w * heads_.v(j, h)[c];
    }
    double scale = factor(i, h);
    if (settings_.denominator == PolynomialAttentionSettings::Denominator::sum)
      scale /= settings_.eps + sum;
    else if (settings_.denominator == PolynomialAttentionSettings::Denominator::one_plus_sum)
      scale /= 1 + sum;
    else
      scale *= settings_.scale_mode == PolynomialAttentionSettings::ScaleMode::row
                   ? 1 / std::sqrt(static_cast<double>(i + 1))
                   : settings_.c[settings_.c.size() == 1 ? 0 : static_cast<std::size_t>(h)];
    for (Index c = 0; c < dv; ++c) out[c] *= scale;
  }

  PolynomialAttentionSettings settings_;
  const KindInput& input_;
  HeadRows heads_;
  std::vector<double> o_, g_;
};

struct Case {
  explicit Case(Json json, std::uint64_t seed = 1)
      : settings(std::move(json)),
        values(OneKind::random_values(kKind, settings, surroundings(), seed)),
        input(random_input(kRows, kWidth, seed + 100)),
        layer(kKind, settings, surroundings(), values),
        loop(settings, values, input) {}

  std::vector<float> run(std::vector<Edit> edits) const {
    return testing::run_pieces(layer, input, {{0, kRows, std::move(edits)}});
  }
  void expect(const std::vector<float>& actual) const { expect_near(actual, loop.output(), kStages, kTerms); }

  Json settings;
  OneKind::Values values;
  KindInput input;
  OneKind layer;
  DoubleLoop loop;
};

const Json kPlain = {{"num_heads", 4},       {"num_kv_heads", 2}, {"head_dim", 10},
                     {"value_head_dim", 36}, {"degree", 2},       {"denominator", "one_plus_sum"}};
const Json kDecayed = with(with(kPlain, "decay", "scalar"), "decay_temperature", 2);

// -- Features

TEST(PowerFeatures, CountMeetsTheBinomial) {
  // The table of softmax-family 6.1.
  const Index table[3][4] = {
      {136, 528, 2080, 8256}, {816, 5984, 45760, 357760}, {3876, 52360, 766480, 11716640}};
  const Index dims[4] = {16, 32, 64, 128};
  for (Index p = 2; p <= 4; ++p)
    for (Index i = 0; i < 4; ++i) EXPECT_EQ(PowerFeatures::monomials(dims[i], p), table[p - 2][i]);
}

// phi(q).phi(k) in double, and the sum of its terms' magnitudes.
struct FeatureProduct {
  double value = 0, magnitude = 0;
};
FeatureProduct product_of(const PowerFeatures& features, const std::vector<double>& q,
                          const std::vector<double>& k) {
  FeatureProduct product;
  for (Index a = 0; a < features.size(); ++a) {
    double term = features.weights()[static_cast<std::size_t>(a)];
    Index last = 0;
    for (const Index c : features.channels(a)) {
      EXPECT_LE(last, c);
      last = c;
      term *= q[static_cast<std::size_t>(c)] * k[static_cast<std::size_t>(c)];
    }
    product.value += term;
    product.magnitude += std::abs(term);
  }
  return product;
}

double dot_of(const std::vector<double>& q, const std::vector<double>& k) {
  return std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
}

std::vector<double> normal_vector(Numbers& numbers, Index width) {
  std::vector<double> x;
  for (Index c = 0; c < width; ++c) x.push_back(numbers.normal());
  return x;
}

// phi(q).phi(k) = (q.k)^p in double for p = 1..6, d = 5 (softmax-family 6.1: relative error <= 1e-15).
TEST(PowerFeatures, WeightedProductsAreThePower) {
  Numbers numbers(1);
  for (Index p = 1; p <= 6; ++p)
    for (int draw = 0; draw < 20; ++draw) {
      const std::vector<double> q = normal_vector(numbers, 5), k = normal_vector(numbers, 5);
      const FeatureProduct sum = product_of(PowerFeatures(5, p), q, k);
      EXPECT_NEAR(sum.value, std::pow(dot_of(q, k), static_cast<int>(p)), 2e-15 * sum.magnitude) << "p " << p;
    }
}

// (b + q.k)^p: the same features of vectors with sqrt b appended, C(d + p, p) of them (6.1: p <= 4, 6e-16).
TEST(PowerFeatures, AnAppendedRootMakesThePowerInhomogeneous) {
  Numbers numbers(2);
  for (Index p = 1; p <= 4; ++p) {
    const PowerFeatures features(6, p);
    EXPECT_EQ(features.size(), PowerFeatures::monomials(5, p) + PowerFeatures::monomials(6, p - 1));
    for (const double b : {0.25, 1.0, 3.0}) {
      std::vector<double> q = normal_vector(numbers, 5), k = normal_vector(numbers, 5);
      const double expected = std::pow(b + dot_of(q, k), static_cast<int>(p));
      q.push_back(std::sqrt(b)), k.push_back(std::sqrt(b));
      const FeatureProduct sum = product_of(features, q, k);
      EXPECT_NEAR(sum.value, expected, 2e-15 * sum.magnitude) << "p " << p << " b " << b;
    }
  }
}

// sum_{r <= p} s^r / r!: the features of every order, each over r!, one after the other. Even orders have
// no sign: at s = -1 order 2 has its minimum, 1/2.
TEST(PowerFeatures, OrdersTogetherAreATruncatedTaylorSeries) {
  Numbers numbers(3);
  for (Index p = 1; p <= 4; ++p) {
    const std::vector<double> q = normal_vector(numbers, 5), k = normal_vector(numbers, 5);
    double sum = 1, magnitude = 1, expected = 1, term = 1, factorial = 1;
    Index size = 1;
    for (Index r = 1; r <= p; ++r) {
      const PowerFeatures features(5, r);
      factorial *= static_cast<double>(r);
      const FeatureProduct order = product_of(features, q, k);
      sum += order.value / factorial;
      magnitude += order.magnitude / factorial;
      expected += term *= dot_of(q, k) / static_cast<double>(r);
      size += features.size();
    }
    EXPECT_NEAR(sum, expected, 2e-15 * magnitude) << p;
    EXPECT_EQ(size, PowerFeatures::monomials(6, p));  // C(d + p, p)
  }
}

// Blocks in rows and in columns hold the monomials their channels name, in order and without gaps.
TEST(PowerFeatures, BlocksHoldTheNamedMonomials) {
  const Kernels& k = kernels();
  for (const auto& [dim, degree] :
       std::vector<std::pair<Index, Index>>{{1, 3}, {7, 1}, {40, 2}, {9, 3}, {12, 4}, {5, 6}}) {
    const PowerFeatures features(dim, degree);
    constexpr Index kColumns = 3;
    const std::vector<float> x = Numbers(2).normals(dim * kColumns);  // [dim][3]
    std::vector<float> lower(static_cast<std::size_t>(features.lower_size() * kColumns));
    std::vector<float> one(static_cast<std::size_t>(dim)),
        one_lower(static_cast<std::size_t>(features.lower_size()));
    for (Index c = 0; c < dim; ++c)
      one[static_cast<std::size_t>(c)] = x[static_cast<std::size_t>(c * kColumns + 1)];
    features.lower_columns(kColumns, x.data(), kColumns, lower.data(), k);
    features.lower(one.data(), one_lower.data(), k);
    Index next = 0;
    for (const PowerFeatures::Block& block : features.blocks()) {
      ASSERT_EQ(block.first, next);
      next += block.count;
      std::vector<float> y(static_cast<std::size_t>(block.count * kColumns)),
          row(static_cast<std::size_t>(block.count));
      features.block_columns(block, kColumns, x.data(), kColumns, lower.data(), y.data(), k);
      features.block(block, one.data(), one_lower.data(), row.data(), k);
      for (Index i = 0; i < block.count; ++i) {
        double expected = 1;
        for (const Index c : features.channels(block.first + i))
          expected *= double{one[static_cast<std::size_t>(c)]};
        const float value = row[static_cast<std::size_t>(i)];
        EXPECT_NEAR(value, expected, std::abs(expected) * kEps * static_cast<double>(degree));
        EXPECT_EQ(value, y[static_cast<std::size_t>(i * kColumns + 1)]);
      }
    }
    EXPECT_EQ(next, features.size());
  }
}

// -- The kind

TEST(PolynomialAttention, MeetsItsTwinInEveryExample) {
  for (const std::string& example : Registry::builtin().find(kKind).examples) {
    const Json settings = Json::parse(example);
    const auto values = OneKind::random_values(kKind, settings, surroundings(), 2);
    const OneKind layer(kKind, settings, surroundings(), values);
    const auto input = random_input(kRows, kWidth, 3);
    expect_near(layer.run(input), layer.twin(input), kStages, kTerms);
  }
}

TEST(PolynomialAttention, TwinMeetsTheTestsOwnLoop) {
  for (const Json& settings :
       {kPlain, kDecayed, with(with(kPlain, "denominator", "none"), "scale_mode", "row")}) {
    const Case c(settings);
    EXPECT_LE(testing::relative_error(c.layer.twin(c.input), c.loop.output()), 1e-13);
  }
}

// Exact recurrence = quadratic formula: p = 1..4 un-normalised, even p normalised, with and without decay.
TEST(PolynomialAttention, BothEvaluationsMeetTheTwin) {
  for (const Index degree : {1, 2, 3, 4})
    for (const char* denominator : {"none", "sum", "one_plus_sum"})
      for (const char* decay : {"none", "scalar"}) {
        if (degree % 2 != 0 && std::string(denominator) != "none") continue;
        Json settings = {{"num_heads", 2},   {"head_dim", 8},  {"value_head_dim", 12},
                         {"degree", degree}, {"decay", decay}, {"denominator", denominator}};
        settings["qk_norm"] = Json::object();
        const auto values = OneKind::random_values(kKind, settings, surroundings(), 4);
        const auto input = random_input(kRows, kWidth, 5);
        std::vector<std::vector<float>> outputs;
        for (const char* evaluation : evaluations()) {
          const OneKind layer(kKind, with(settings, "evaluation", evaluation), surroundings(), values);
          outputs.push_back(layer.run(input));
          expect_near(outputs.back(), layer.twin(input), kStages, kTerms);
        }
        expect_near(outputs[0], testing::widen(outputs[1]), kStages, kTerms);
      }
}

TEST(PolynomialAttention, AgreesOverChunks) {
  const auto values = OneKind::random_values(kKind, kDecayed, surroundings(), 6);
  const auto input = random_input(kRows, kWidth, 7);
  const std::vector<double> expected = OneKind(kKind, kDecayed, surroundings(), values).twin(input);
  for (const Index chunk : {1, 7, 32, 40, 64})
    expect_near(OneKind(kKind, kDecayed, surroundings(chunk), values).run(input), expected, kStages, kTerms);
}

TEST(PolynomialAttention, BitsDoNotDependOnSplitOrThreads) {
  for (const char* evaluation : evaluations())
    for (const Json& settings : {kPlain, kDecayed}) {
      const Case c(with(settings, "evaluation", evaluation));
      const std::vector<float> whole = c.layer.run(c.input);
      for (const auto& [split, threads] : std::vector<std::pair<std::vector<Index>, int>>{
               {{1}, 1}, {{7}, 1}, {{64, 1, 21}, 3}, {{31, 2}, 2}})
        EXPECT_TRUE(same_bits(
            c.layer.run(c.input, {.split = split, .compute = {Numerics::exact, Isa::automatic, threads}}),
            whole))
            << evaluation << ", split " << split[0] << ", threads " << threads;
    }
}

// For even p, q and -q are the same query; for odd p the output changes its sign. Exactly: signs are not
// rounded.
TEST(PolynomialAttention, SignOfTheQuery) {
  for (const char* evaluation : evaluations())
    for (const Index degree : {2, 3}) {
      Json settings = with(with(kPlain, "degree", degree), "denominator", "none");
      const Case c(with(settings, "evaluation", evaluation));
      auto values = c.values;
      for (float& w : values["q"]) w = -w;
      std::vector<float> y = OneKind(kKind, c.settings, surroundings(), values).run(c.input);
      if (degree == 3)
        for (float& value : y) value = -value;
      EXPECT_EQ(y, c.layer.run(c.input)) << evaluation << " " << degree;
    }
}

// A far decay forgets everything but the row itself: o = (s_ii)^p v_i / (1 + (s_ii)^p).
TEST(PolynomialAttention, InstantDecayKeepsTheCurrentTokenOnly) {
  for (const char* evaluation : evaluations()) {
    Case c(with(kDecayed, "evaluation", evaluation));
    c.loop.decay = [](Index, Index, double) { return -200.0; };
    c.expect(c.run({inner_edit(Site::decay, Operator::constant, {}, -200)}));
  }
}

// Sums of odd length and zero weights: the first row of sum with q.k = 0 gives 0 / eps = 0.
TEST(PolynomialAttention, NoWeightGivesZero) {
  for (const char* evaluation : evaluations())
    for (const double eps : {0.0, 1e-6}) {
      Json settings = with(with(with(kPlain, "denominator", "sum"), "eps", eps), "evaluation", evaluation);
      auto values = OneKind::random_values(kKind, settings, surroundings(), 8);
      values["q"].assign(values["q"].size(), 0.0f);
      for (const float y : OneKind(kKind, settings, surroundings(), values).run(random_input(70, kWidth, 9)))
        EXPECT_EQ(y, 0);
    }
}

// Normalised rows of weights sum to 1, and to Z / (1 + Z).
TEST(PolynomialAttention, RowSums) {
  Json settings = {{"degree", 2}, {"denominator", "sum"}, {"eps", 0}};
  const auto sums = [&](const std::vector<double>& w, Index n) {
    std::vector<double> all;
    for (Index i = 0; i < n; ++i) {
      double sum = 0;
      for (Index j = 0; j < n; ++j) sum += w[static_cast<std::size_t>(i * n + j)];
      all.push_back(sum);
    }
    return all;
  };
  for (const double sum : sums(testing::WeightProbe(settings, 50, 16, 24, 10).weights(kKind), 50))
    EXPECT_NEAR(sum, 1, 1e-13);
  settings["denominator"] = "one_plus_sum";
  const auto normed = sums(testing::WeightProbe(settings, 50, 16, 24, 10).weights(kKind), 50);
  settings["denominator"] = "none";
  const auto z = sums(testing::WeightProbe(settings, 50, 16, 24, 10).weights(kKind), 50);
  for (std::size_t i = 0; i < z.size(); ++i) EXPECT_NEAR(normed[i], z[i] / (1 + z[i]), 1e-13);
}

// sqrt(mean |S^p|_F^2) grows like N for random logits, hence like sqrt(N) after the factor 1 / sqrt(N): the
// tabled F / N (softmax-family 3.2, causal columns), here with 48 other draws, and a slope in [.95, 1.05]. p
// = 3 has heavy tails, so its bound is wider.
TEST(PolynomialAttention, FrobeniusNormsGrowLikeSoftmax) {
  const double table[3][4] = {
      {.718, .719, .711, .711}, {1.320, 1.327, 1.315, 1.320}, {3.315, 3.334, 3.350, 3.370}};
  const double bound[3] = {0.03, 0.06, 0.12};
  const Index lengths[4] = {32, 64, 128, 256};
  constexpr std::uint64_t kDraws = 48;
  double squares[3][4] = {};
  for (int n = 0; n < 4; ++n)
    for (std::uint64_t draw = 1; draw <= kDraws; ++draw) {
      const testing::WeightProbe probe({{"degree", 1}}, lengths[n], 32, 64, draw << 40);
      for (const double s : probe.weights(kKind))
        for (int p = 0; p < 3; ++p) squares[p][n] += std::pow(s * s, p + 1) / kDraws;
    }
  for (int p = 0; p < 3; ++p) {
    std::vector<double> logs;
    for (int n = 0; n < 4; ++n) {
      const double norm = std::sqrt(squares[p][n]);
      EXPECT_NEAR(norm / static_cast<double>(lengths[n]) / table[p][n], 1, bound[p]) << "p " << p + 1;
      logs.push_back(std::log2(norm));
    }
    // Least squares over log2 N = 5, 6, 7, 8.
    const double slope = (-1.5 * logs[0] - 0.5 * logs[1] + 0.5 * logs[2] + 1.5 * logs[3]) / 5;
    EXPECT_GE(slope, 0.95);
    EXPECT_LE(slope, 1.05);
  }
}

// The factors that bring the norms to the order of softmax: c = 1 / sqrt(N) on every weight, or 1 / sqrt(i +
// 1) on row i.
TEST(PolynomialAttention, ScaleModesMultiplyTheWeights) {
  constexpr Index kTokens = 64;
  for (const Index degree : {1, 2, 3, 4}) {
    const auto weights = [&](Json settings) {
      settings["degree"] = degree;
      return testing::WeightProbe(settings, kTokens, 32, 64, 3).weights(kKind);
    };
    const std::vector<double> plain = weights({}), fixed = weights({{"c", 0.125}}),
                              row = weights({{"scale_mode", "row"}});
    const std::vector<double> first =
        testing::WeightProbe({{"degree", 1}}, kTokens, 32, 64, 3).weights(kKind);
    for (std::size_t w = 0; w < plain.size(); ++w) {
      const double expected = w % kTokens > w / kTokens ? 0 : std::pow(first[w], static_cast<int>(degree));
      EXPECT_NEAR(plain[w], expected, 1e-13 * std::abs(expected));
      EXPECT_EQ(fixed[w], 0.125 * plain[w]);
      EXPECT_NEAR(row[w], plain[w] / std::sqrt(static_cast<double>(w / kTokens + 1)),
                  1e-15 * std::abs(plain[w]));
    }
  }
}

// -- Sites, in both evaluations

class PolynomialSites : public ::testing::TestWithParam<const char*> {
 protected:
  Case decayed() const { return Case(with(kDecayed, "evaluation", GetParam())); }
};

TEST_P(PolynomialSites, HeadZeroAndScale) {
  Case c = decayed();
  c.loop.factor = [](Index, Index h) { return h == 0 ? 0.0 : h == 2 ? 3.0 : 1.0; };
  c.expect(
      c.run({inner_edit(Site::head, Operator::zero, {0}), inner_edit(Site::head, Operator::scale, {2}, 3)}));
}

TEST_P(PolynomialSites, DecayOneNeverForgets) {
  Case c = decayed();
  c.loop.decay = [](Index, Index h, double g) { return h == 1 ? 0 : g; };
  c.expect(c.run({inner_edit(Site::decay, Operator::one, {1})}));
  // On all heads: the layer without decay, and with the same state per head even the same weights.
  c.loop.decay = [](Index, Index, double) { return 0.0; };
  c.expect(c.run({inner_edit(Site::decay, Operator::one)}));
}

TEST_P(PolynomialSites, DecayConstantPerHead) {
  Case c = decayed();
  Edit constant = inner_edit(Site::decay, Operator::constant);
  constant.values = {-0.1, -0.02, 0, -1};
  c.loop.decay = [&](Index, Index h, double) { return constant.values[static_cast<std::size_t>(h)]; };
  c.expect(c.run({constant}));
}

// Memoryless: a row meets its own key only.
TEST_P(PolynomialSites, DecayZeroForgetsAtOnce) {
  Case c = decayed();
  c.loop.decay = [](Index, Index h, double g) { return h == 1 ? -1e9 : g; };
  c.expect(c.run({inner_edit(Site::decay, Operator::zero, {1})}));
}

TEST_P(PolynomialSites, WithheldWritesAreNeverSeenAndDecayGoesOn) {
  for (const auto& [site, op] :
       std::vector<std::pair<Site, Operator>>{{Site::write, Operator::zero},
                                              {Site::state, Operator::no_write},
                                              {Site::state, Operator::delete_write}}) {
    Case c = decayed();
    c.loop.written = [](Index j, Index) { return j < 30 || j >= 71; };
    c.expect(testing::run_pieces(c.layer, c.input, {{0, 30}, {30, 71, {inner_edit(site, op)}}, {71, kRows}}));
    // Of one group only.
    c.loop.written = [](Index j, Index h) { return h < 2 || j < 30 || j >= 71; };
    c.expect(testing::run_pieces(c.layer, c.input,
                                 {{0, 30}, {30, 71, {inner_edit(site, op, {2, 3})}}, {71, kRows}}));
    EXPECT_THROW(testing::run_pieces(c.layer, c.input, {{0, 30, {inner_edit(site, op, {2})}}}), Error);
  }
}

TEST_P(PolynomialSites, FreezeStopsDecayAndWrites) {
  Case c = decayed();
  c.loop.written = [](Index j, Index) { return j < 30 || j >= 71; };
  c.loop.decay = [](Index t, Index, double g) { return t < 30 || t >= 71 ? g : 0; };
  c.expect(testing::run_pieces(
      c.layer, c.input, {{0, 30}, {30, 71, {inner_edit(Site::state, Operator::freeze)}}, {71, kRows}}));
}

TEST_P(PolynomialSites, WithheldReadsLeaveTheStateAlone) {
  for (const Operator op : {Operator::no_read, Operator::zero}) {
    Case c = decayed();
    c.loop.factor = [](Index i, Index h) { return h == 1 && i >= 30 && i < 71 ? 0.0 : 1.0; };
    const std::vector<float> y = testing::run_pieces(
        c.layer, c.input, {{0, 30}, {30, 71, {inner_edit(Site::state, op, {1})}}, {71, kRows}});
    c.expect(y);
    const std::vector<float> plain = c.layer.run(c.input);
    EXPECT_TRUE(same_bits(std::span(y).subspan(71 * kWidth), std::span(plain).subspan(71 * kWidth)));
  }
}

TEST_P(PolynomialSites, SkippedRowsAreNeutral) {
  Case c = decayed();
  const std::vector<float> y =
      testing::run_pieces(c.layer, c.input, {{0, 20}, {20, 75, {}, true}, {75, kRows}});
  const auto skipped = [](Index t) { return t >= 20 && t < 75; };
  c.loop.written = [&](Index j, Index) { return !skipped(j); };
  c.loop.decay = [&](Index t, Index, double g) { return skipped(t) ? 0 : g; };
  std::vector<double> expected = c.loop.output();
  std::fill(expected.begin() + 20 * kWidth, expected.begin() + 75 * kWidth, 0.0);
  expect_near(y, expected, kStages, kTerms);
}

TEST_P(PolynomialSites, PositionNormAndGateAreLayersWithoutThem) {
  const Json plain_settings = with(kDecayed, "evaluation", GetParam());
  Json settings = with(with(plain_settings, "rope", {{"theta", 10000}}), "qk_norm", Json::object());
  settings["gate"] = "sigmoid";
  const Case c(settings);
  auto values = c.values;
  for (const char* name : {"q_norm", "k_norm", "gate"}) values.erase(name);
  const OneKind plain(kKind, plain_settings, surroundings(), values);
  const std::vector<Edit> edits = {inner_edit(Site::position, Operator::none),
                                   inner_edit(Site::qk_norm, Operator::off),
                                   inner_edit(Site::gate, Operator::one)};
  EXPECT_TRUE(same_bits(c.run(edits), plain.run(c.input)));
}

TEST_P(PolynomialSites, PositionShiftMovesOnlyTheRowsItCovers) {
  Case c(with(with(kDecayed, "evaluation", GetParam()), "rope", {{"theta", 10000}}));
  HeadRows& heads = c.loop.heads();
  const RopeSettings rope = *heads.settings.rope;
  for (Index t = 60; t < kRows; ++t) {
    for (Index h = 0; h < 4; ++h) rotate_head(rope, -8, heads.rows.q.data() + (t * 4 + h) * 10);
    for (Index h = 0; h < 2; ++h) rotate_head(rope, -8, heads.rows.k.data() + (t * 2 + h) * 10);
  }
  c.expect(testing::run_pieces(
      c.layer, c.input, {{0, 60}, {60, kRows, {inner_edit(Site::position, Operator::shift, {}, -8)}}}));
}

INSTANTIATE_TEST_SUITE_P(Evaluations, PolynomialSites, ::testing::ValuesIn(evaluations()),
                         [](const auto& evaluation) { return std::string(evaluation.param); });

TEST(PolynomialAttention, RefusesWhatItCannotMean) {
  const auto refuse = [](const Json& changes) {
    Json settings = {{"num_heads", 2}, {"head_dim", 8}, {"degree", 2}};
    settings.update(changes);
    Config config("blocks.0.mixer", settings, surroundings());
    EXPECT_THROW(read_polynomial_attention(config), Error) << changes;
  };
  refuse({{"degree", 0}});
  refuse({{"degree", 5}});
  refuse({{"degree", 3}, {"denominator", "sum"}});
  refuse({{"degree", 1}, {"denominator", "one_plus_sum"}});
  refuse({{"denominator", "sum"}, {"c", 2}});
  refuse({{"denominator", "sum"}, {"scale_mode", "row"}});
  refuse({{"scale_mode", "row"}, {"c", 2}});
  refuse({{"c_per_head", {1, 2, 3}}});
  refuse({{"c", 2}, {"c_per_head", {1, 1}}});
  refuse({{"scale_mode", "row"}, {"c_per_head", {1, 1}}});
  refuse({{"denominator", "sum"}, {"c_per_head", {1, 1}}});
  refuse({{"eps", -1}});
  refuse({{"decay_temperature", 0}});
  refuse({{"evaluation", "chunked"}});
  refuse({{"window", 4}});
}

// The quadratic evaluation keeps its keys, so keys can be hidden from it.
TEST(PolynomialAttentionSites, HiddenAndZeroedKeys) {
  Case c(with(kDecayed, "evaluation", "quadratic"));
  Edit hidden = inner_edit(Site::score, Operator::knockout, {2, 3});
  hidden.key_begin = 10;
  hidden.key_end = 77;
  c.loop.written = [](Index j, Index h) { return h < 2 || j < 10 || j >= 77; };
  c.expect(c.run({hidden}));
  c.loop.written = [](Index j, Index) { return j >= 13; };
  c.expect(c.run({inner_edit(Site::sinks, Operator::mask, {}, 13)}));
  // With one_plus_sum the mass stays: the values of the zeroed keys are what is missing.
  hidden.op = Operator::zero;
  hidden.heads = {};
  hidden.key_begin = 0;
  hidden.key_end = kRows;
  for (const float y : c.run({hidden})) EXPECT_EQ(y, 0);
}

}  // namespace
}  // namespace plait
