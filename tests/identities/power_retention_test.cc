#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <tuple>

#include "layers/reference/power_retention.h"
#include "layers/reference/recurrence.h"
#include "tests/identities/attention_rows.h"
#include "tests/identities/weighted_pairs.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 100, kWidth = 40;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values("power_retention", settings, surroundings(), 1);
}

OneKind make(const Json& settings) {
  return OneKind("power_retention", settings, surroundings(), random_values(settings));
}

// Projections, products over features, the sum over tokens and the output projection.
constexpr double kLength = kWidth + 300 + kRows + 160;
// What a state gives is a sum of terms of both signs, of size |q|^p |k|^p; the weights they add up to are
// typically 1 / d of that for p = 2 and 3 / d^2 = 1 / 48 for p = 4. The first rows divide by few of them.
double factor_of(const Json& settings) { return settings.value("degree", 2) == 4 ? 48 : 16; }

Json grouped(Index switch_over) {
  return {{"num_heads", 4},
          {"num_kv_heads", 2},
          {"head_dim", 12},
          {"value_head_dim", 40},
          {"switch_over_seq_len", switch_over}};
}

TEST(PowerRetention, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Index switch_over : {1, 7, 32, 300})
    for (const Json& more : {Json{{"rope", {{"theta", 100}}}}, Json{{"degree", 4}, {"bias", false}},
                             Json{{"output_norm", true}, {"qk_norm", Json::object()}}}) {
      Json settings = grouped(switch_over);
      settings.update(more);
      SCOPED_TRACE(settings.dump());
      const OneKind kind = make(settings);
      const std::vector<float> whole = kind.run(input);
      expect_near(whole, kind.twin(input), factor_of(settings), kLength);
      EXPECT_TRUE(same_bits(kind.run(input, {.split = {1, 20, 33}}), whole));
    }
}

// Without guards: the recurrence of phi_2 with its gate, in double, is the direct sum, wherever the state
// takes over.
TEST(PowerRetention, RecurrenceIsTheDirectSum) {
  const KindInput input = random_input(kRows, kWidth, 3);
  Json settings = grouped(8);
  settings.update({{"log_eps", 0}, {"sum_eps", 0}, {"bias", false}});
  const OneKind::Values values = random_values(settings);
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, numbers] : values)
    tensors[name] = make_tensor({static_cast<Index>(numbers.size())}, numbers);
  const reference::Weights weights{Parameters(tensors)};
  const std::vector<double> wide = widen(input.inputs[0]);
  const View<const double> x(wide.data(), kRows, kWidth);
  const Index d = 12, dv = 40;
  const auto squares = [&](const char* name) {
    const reference::Rows from = weights.project(name, x);
    reference::Rows y(kRows, from.cols * d);
    for (Index t = 0; t < kRows; ++t)
      for (Index c = 0; c < from.cols; ++c)
        for (Index e = 0; e < d; ++e)
          y(t, c * d + e) = from(t, c) * from(t, c / d * d + e) / std::sqrt(static_cast<double>(d));
    return y;
  };
  const reference::Rows q = squares("q"), k = squares("k"), v = weights.project("v", x);
  reference::Rows g = weights.project("decay", x), ones(kRows, 2);
  for (Index t = 0; t < kRows; ++t)
    for (Index h = 0; h < 2; ++h) {
      g(t, h) = reference::log_sigmoid(g(t, h) + weights.at("decay_bias", h));
      ones(t, h) = 1;
    }
  reference::Heads heads{4, 2, 2, d * d, dv, 1};
  reference::Rows o = reference::decayed_sum(heads, q, k, v, &g, nullptr);
  heads.value = 1;
  const reference::Rows mass = reference::decayed_sum(heads, q, k, ones, &g, nullptr);
  for (Index t = 0; t < kRows; ++t)
    for (Index c = 0; c < o.cols; ++c) o(t, c) /= mass(t, c / dv);
  const OneKind kind("power_retention", settings, surroundings(), values);
  expect_same(kind.twin(input), weights.project("o", o.view()).data);
  settings["switch_over_seq_len"] = 64;
  expect_same(OneKind("power_retention", settings, surroundings(), values).twin(input), kind.twin(input));
}

// The chunked form of the authors' code, with its maximum, alpha and gamma, of one head whose output is its
// row of weights.
TEST(PowerRetention, TwinIsTheCodesChunkedForm) {
  const Index tokens = 40, d = 32, chunk = 8;
  const WeightProbe probe({{"switch_over_seq_len", chunk}, {"bias", false}}, tokens, d, 20, 4);
  OneKind::Values values = probe.values;
  values["decay"].assign(static_cast<std::size_t>(probe.surroundings.width), 0.0f);
  values["decay_bias"] = {2};
  const double log_g = reference::log_sigmoid(2), scale = 1 / std::sqrt(static_cast<double>(d));
  const OneKind kind("power_retention", probe.settings, probe.surroundings, values);
  const std::vector<double> actual = kind.twin(probe.input);

  const Parameters parameters = parameters_of(
      [&] {
        Config config("tested", probe.settings, probe.surroundings);
        return kind.kind().tensors(config);
      }(),
      values);
  Config config("tested", probe.settings, probe.surroundings);
  const ProjectionSettings p = read_power_retention(config).projection;
  const std::vector<double> wide = widen(probe.input.inputs[0]);
  const HeadRows rows{p, ProjectionTwin(p, parameters).run({wide.data(), tokens, probe.surroundings.width})};
  for (Index i = 0; i < tokens; ++i) {
    const Index begin = i / chunk * chunk;
    double m = -INFINITY, l = 1e-6;
    std::vector<double> y(static_cast<std::size_t>(tokens)), state = y;
    std::vector<double> z = y;
    for (Index j = begin; j <= i; ++j) {
      z[static_cast<std::size_t>(j)] =
          2 * std::log(std::abs(rows.dot(i, j, 0)) * scale + 1e-7) + log_g * static_cast<double>(i - j);
      m = std::max(m, z[static_cast<std::size_t>(j)]);
    }
    for (Index j = begin; j <= i; ++j) {
      y[static_cast<std::size_t>(j)] = std::exp(z[static_cast<std::size_t>(j)] - m);
      l += y[static_cast<std::size_t>(j)];
    }
    const double gamma = begin == 0 ? 1 : std::sqrt(static_cast<double>(d * (d + 1) / 2));
    const double alpha = std::max(gamma, std::exp(m));
    double total = 0;
    for (Index j = 0; j < begin; ++j) {  // phi(q e^(c_i / p)).phi(k e^(-c_j / p)) / gamma
      state[static_cast<std::size_t>(j)] =
          std::pow(rows.dot(i, j, 0) * std::exp(log_g * static_cast<double>(i - j) / 2), 2) / gamma;
      total += state[static_cast<std::size_t>(j)];
    }
    const double own = std::exp(m) / alpha, past = gamma / alpha * scale * scale;
    for (Index j = 0; j < tokens; ++j) {
      const auto at = static_cast<std::size_t>(j);
      EXPECT_NEAR(actual[static_cast<std::size_t>(i * probe.surroundings.width + j)],
                  (y[at] * own + past * state[at]) / (l * own + past * total), 1e-12);
    }
  }
}

// softmax-family 6.2, TESTED: the chunked form with its guards against the direct sum differs by their own
// size, 2e-6, at d = 32, 40 tokens and chunks of 8.
TEST(PowerRetention, GuardsAreSmall) {
  Json settings = {{"num_heads", 2}, {"head_dim", 32}, {"switch_over_seq_len", 8}};
  const OneKind::Values values = random_values(settings);
  const KindInput input = random_input(40, kWidth, 5);
  const auto twin = [&](const Json& s) {
    return OneKind("power_retention", s, surroundings(), values).twin(input);
  };
  const std::vector<double> chunked = twin(settings);
  settings.update({{"log_eps", 0}, {"sum_eps", 0}});
  const double error = relative_error(chunked, twin(settings));
  EXPECT_LT(error, 2e-6);
  EXPECT_GT(error, 1e-8);
}

// log_g = 0 and degree 2: ReBased without its norm.
// 6.2, TESTED: the code's features for p = 2 in blocks of 16, whose entries below the block count twice in
// the key, have the products of the minimal ones: (q.k)^2.
TEST(PowerRetention, BlocksOfTheCodeHaveTheSameProducts) {
  constexpr Index kBlock = 16;
  const auto features = [](const std::vector<double>& x, double below) {
    std::vector<double> all;
    for (Index block = 0; block < std::ssize(x); block += kBlock)
      for (Index a = 0; a < block + kBlock; ++a)
        for (Index b = block; b < block + kBlock; ++b)
          all.push_back((a < block ? below : 1) * x[static_cast<std::size_t>(a)] *
                        x[static_cast<std::size_t>(b)]);
    return all;
  };
  Numbers numbers(21);
  for (const auto& [head_dim, size, least] : std::vector<std::tuple<Index, std::size_t, Index>>{
           {32, 768, 528}, {64, 2560, 2080}, {128, 9216, 8256}}) {
    const auto draw = [&, n = head_dim] {
      std::vector<double> x;
      for (Index i = 0; i < n; ++i) x.push_back(numbers.uniform(-1, 1));
      return x;
    };
    const std::vector<double> q = draw(), k = draw(), phi_q = features(q, 1), phi_k = features(k, 2);
    EXPECT_EQ(phi_q.size(), size);
    const double dot = std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
    const double product = std::inner_product(phi_q.begin(), phi_q.end(), phi_k.begin(), 0.0);
    // A sum of terms of both signs, rounded at the size of the terms.
    const double terms = std::inner_product(q.begin(), q.end(), k.begin(), 0.0, std::plus<>(),
                                            [](double a, double b) { return std::abs(a * b); });
    EXPECT_NEAR(product, dot * dot, 1e-13 * terms * terms) << head_dim;
    const OneKind kind = make({{"num_heads", 1}, {"head_dim", head_dim}});
    const auto fields = kind.layer().fields();
    EXPECT_TRUE(std::any_of(fields.begin(), fields.end(), [&, d = least](const Field& field) {
      return std::find(field.shape.begin(), field.shape.end(), d) != field.shape.end();
    })) << head_dim;
  }
}

TEST(PowerRetention, WithoutDecayIsRebased) {
  const Json settings = {{"num_heads", 2}, {"head_dim", 9}, {"value_head_dim", 24},
                         {"bias", false},  {"log_eps", 0},  {"sum_eps", 0}};
  const Json rebased = {
      {"num_heads", 2}, {"head_dim", 9}, {"value_head_dim", 24}, {"qk_norm", "none"}, {"eps", 0}};
  OneKind::Values values = random_values(settings);
  for (float& x : values["decay"]) x = 0;
  for (float& x : values["decay_bias"]) x = 100;  // log sigmoid: -4e-44
  const KindInput input = random_input(kRows, kWidth, 6);
  const std::vector<double> retained =
      OneKind("power_retention", settings, surroundings(), values).twin(input);
  values.erase("decay");
  values.erase("decay_bias");
  expect_same(retained, OneKind("rebased", rebased, surroundings(), values).twin(input));
}

TEST(PowerRetention, WeightsSumToOneUpToTheGuard) {
  const Index tokens = 40;
  WeightProbe probe({{"switch_over_seq_len", 16}, {"bias", false}}, tokens, 16, 12, 7);
  probe.values["decay"].assign(static_cast<std::size_t>(probe.surroundings.width), 0.0f);
  probe.values["decay_bias"] = {3};
  const std::vector<double> weights = probe.weights("power_retention");
  for (Index i = 0; i < tokens; ++i) {
    double sum = 0;
    for (Index j = 0; j < tokens; ++j) sum += weights[static_cast<std::size_t>(i * tokens + j)];
    EXPECT_LE(sum, 1);
    EXPECT_GE(sum, 1 - 1.1e-6);
  }
}

// Decays belong to key/value heads, the other sites to query heads.
TEST(PowerRetention, EditsOfGroups) {
  const Json settings = grouped(16);
  OneKind::Values values = random_values(settings);
  const KindInput input = random_input(kRows, kWidth, 8);
  const OneKind kind("power_retention", settings, surroundings(), values);
  const std::vector<float> forever = kind.run(input, {.edits = {inner_edit(Site::decay, Operator::one)}});
  for (float& x : values["decay"]) x = 0;
  for (float& x : values["decay_bias"]) x = 200;
  expect_near(forever, OneKind("power_retention", settings, surroundings(), values).twin(input), 16, kLength);

  for (const Operator op : {Operator::freeze, Operator::no_write, Operator::zero}) {
    const std::vector<float> y = kind.run(input, {.edits = {inner_edit(Site::state, op)}});
    for (Index t = 0; t < kRows; ++t)
      for (Index c = 0; c < kWidth; ++c)
        ASSERT_EQ(y[static_cast<std::size_t>(t * kWidth + c)], values["o_bias"][static_cast<std::size_t>(c)])
            << name_of(op);
  }
  EXPECT_THROW(kind.run(input, {.edits = {inner_edit(Site::state, Operator::freeze, {1})}}), Error);
}

TEST(PowerRetention, RefusesWhatItCannotMean) {
  for (const Json& more : {Json{{"degree", 3}}, Json{{"degree", 6}}, Json{{"switch_over_seq_len", 0}},
                           Json{{"log_eps", -1}}, Json{{"sum_eps", -1e-6}}, Json{{"decay_temperature", 4}}}) {
    Json settings = grouped(16);
    settings.update(more);
    Config config("tested", settings, surroundings());
    EXPECT_THROW(Registry::builtin().find("power_retention").tensors(config), Error) << settings.dump();
  }
}

}  // namespace
}  // namespace plait
