#include "layers/reference/softmax_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/kernels/attention.h"
#include "tests/identities/attention_rows.h"

namespace plait {
namespace {

using testing::EditedRows;
using testing::expect_near;
using testing::HeadRows;
using testing::inner_edit;
using testing::kEps;
using testing::KindInput;
using testing::Numbers;
using testing::OneKind;
using testing::random_input;
using testing::same_bits;

constexpr Index kRows = 150, kWidth = 24;  // past two key blocks and a key span
constexpr const char* kKind = "softmax_attention";
// The longest sum has 150 terms; the errors of logits and of weighted values add up.
constexpr double kStages = 2;

Surroundings surroundings(Index width = kWidth) {
  Surroundings s;
  s.width = width;
  s.grids = {32, 64, 128};
  return s;
}

// What the test's own double loop computes: one row of one head, whose keys and logits the test decides.
class DoubleLoop {
 public:
  DoubleLoop(const Json& settings, const OneKind::Values& values, const KindInput& input) : input_(input) {
    Config config("tested", settings, surroundings());
    settings_ = read_softmax_attention(config);
    values_ = values;
    const Parameters parameters = testing::parameters_of(softmax_attention_tensors(settings_), values);
    const std::vector<double> x = testing::widen(input.inputs[0]);
    heads_ = {settings_.projection,
              ProjectionTwin(settings_.projection, parameters).run({x.data(), input.rows, kWidth})};
    o_ = to_double(parameters.tensor("o"));
    gate_ = optional_tensor(parameters, "gate");
  }

  std::function<bool(Index i, Index j, Index h)> visible = [](Index, Index, Index) { return true; };
  std::function<bool(Index i, Index j, Index h)> weighs = [](Index, Index, Index) { return true; };
  // o of a channel of a head
  std::function<double(Index i, Index h, Index c, double o)> head = [](Index, Index, Index, double o) {
    return o;
  };
  std::function<double(Index i, Index h)> factor = [](Index, Index) { return 1.0; };  // on a head's output
  std::function<bool(Index i, Index h)> gated = [](Index, Index) { return true; };
  HeadRows& heads() { return heads_; }

  // [rows, width]
  std::vector<double> output() const {
    const ProjectionSettings& p = settings_.projection;
    const Index columns = p.num_heads * p.value_head_dim;
    std::vector<double> all(static_cast<std::size_t>(input_.rows * columns));
    for (Index i = 0; i < input_.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h) attend(i, h, all.data() + i * columns + h * p.value_head_dim);
    return project({all.data(), input_.rows, columns}, o_, {}, p.width);
  }

 private:
  void attend(Index i, Index h, double* out) const {
    double mass = 0;
    const Index dv = settings_.projection.value_head_dim;
    for (Index j = 0; j <= i; ++j) {
      if (!visible(i, j, h)) continue;
      const double p = std::exp(std::get<ScaledDot>(settings_.score.front()).scale * heads_.dot(i, j, h));
      mass += p;
      for (Index c = 0; weighs(i, j, h) && c < dv; ++c) out[c] += p * heads_.v(j, h)[c];
    }
    for (Index c = 0; c < dv; ++c)
      out[c] = head(i, h, c, mass == 0 ? 0 : out[c] * factor(i, h) * gate(i, h, c) / mass);
  }

  double gate(Index i, Index h, Index c) const {
    if (gate_.empty() || !gated(i, h)) return 1;
    const double* w = gate_.data() + (h * settings_.projection.value_head_dim + c) * kWidth;
    double logit = 0;
    for (Index d = 0; d < kWidth; ++d)
      logit += w[d] * double{input_.inputs[0][static_cast<std::size_t>(i * kWidth + d)]};
    return 1 / (1 + std::exp(-logit));
  }

  SoftmaxAttentionSettings settings_;
  OneKind::Values values_;
  const KindInput& input_;
  HeadRows heads_;
  std::vector<double> o_, gate_;
};

// A node with random parameters, its input and the double loop over the same numbers.
struct Case {
  explicit Case(Json json, std::uint64_t seed = 1)
      : settings(std::move(json)),
        values(OneKind::random_values(kKind, settings, surroundings(), seed)),
        input(random_input(kRows, kWidth, seed + 100)),
        layer(kKind, settings, surroundings(), values),
        loop(settings, values, input) {}

  void expect(const std::vector<float>& actual) const { expect_near(actual, loop.output(), kStages, kRows); }

  Json settings;
  OneKind::Values values;
  KindInput input;
  OneKind layer;
  DoubleLoop loop;
};

const Json kPlain = {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 12}, {"value_head_dim", 20}};

std::vector<float> all_rows(const Case& c, std::vector<Edit> edits) {
  return testing::run_pieces(c.layer, c.input, {{0, kRows, std::move(edits)}});
}

TEST(SoftmaxAttention, MeetsItsTwinInEveryExample) {
  for (const std::string& example : Registry::builtin().find(kKind).examples) {
    const Json settings = Json::parse(example);
    const auto values = OneKind::random_values(kKind, settings, surroundings(), 2);
    const OneKind layer(kKind, settings, surroundings(), values);
    const auto input = random_input(kRows, kWidth, 3);
    SCOPED_TRACE(example);
    if (settings.contains("cache")) continue;  // NarrowCache
    expect_near(layer.run(input), layer.twin(input), kStages, kRows);
  }
}

TEST(SoftmaxAttention, TwinMeetsTheTestsOwnLoop) {
  for (const Index window : {0, 37}) {
    Json settings = kPlain;
    settings["window"] = window;
    if (window > 0) settings["sinks"] = 3;
    Case c(settings);
    c.loop.visible = [&](Index i, Index j, Index) { return window == 0 || j > i - window || j < 3; };
    const std::vector<double> twin = c.layer.twin(c.input), loop = c.loop.output();
    EXPECT_LE(testing::relative_error(twin, loop), 1e-13);
  }
}

TEST(SoftmaxAttention, BitsDoNotDependOnSplitOrThreads) {
  for (const Index window : {0, 9, 37, 100}) {
    Json settings = kPlain;
    settings["window"] = window;
    if (window > 0) settings["sinks"] = 5;
    const Case c(settings);
    const std::vector<float> whole = c.layer.run(c.input);
    for (const auto& [split, threads] :
         std::vector<std::pair<std::vector<Index>, int>>{{{1}, 1}, {{3}, 1}, {{64, 1, 21}, 3}, {{129, 7}, 2}})
      EXPECT_TRUE(same_bits(
          c.layer.run(c.input, {.split = split, .compute = {Numerics::exact, Isa::automatic, threads}}),
          whole))
          << "window " << window << ", split " << split[0] << ", threads " << threads;
  }
}

TEST(SoftmaxAttention, OneVisibleKeyGivesItsValue) {
  // Window 1: o = v exactly, since the only weight is e^0 / e^0. Wv and Wo are unit matrices.
  const Json settings = {{"num_heads", 1}, {"head_dim", kWidth}, {"window", 1}};
  auto values = OneKind::random_values(kKind, settings, surroundings(), 4);
  values["v"] = values["o"] = testing::unit_matrix(kWidth);
  const OneKind layer(kKind, settings, surroundings(), values);
  const auto input = random_input(70, kWidth, 5);
  EXPECT_TRUE(same_bits(layer.run(input), input.inputs[0]));
}

TEST(SoftmaxAttention, ExtremeLogitsStayFinite) {
  Json settings = kPlain;
  settings["scale"] = 1000;  // logits of about 1e4
  const Case c(settings);
  for (const float y : c.layer.run(c.input)) ASSERT_TRUE(std::isfinite(y));
}

// A constant on every logit of a row cancels: keys shifted by one vector u shift row i's logits by q_i.u.
TEST(SoftmaxAttention, ConstantLogitsCancelUnlessThereIsASink) {
  for (const char* normaliser : {"softmax", "softmax_one"}) {
    Json settings = kPlain;
    settings["bias"] = true;
    settings["normaliser"] = normaliser;
    auto values = OneKind::random_values(kKind, settings, surroundings(), 6);
    const auto input = random_input(kRows, kWidth, 7);
    const std::vector<float> before = OneKind(kKind, settings, surroundings(), values).run(input);
    for (float& b : values["k_bias"]) b += 1;
    const std::vector<float> after = OneKind(kKind, settings, surroundings(), values).run(input);
    const double error = testing::relative_error(testing::widen(after), testing::widen(before));
    if (std::string(normaliser) == "softmax")
      EXPECT_LE(error, kStages * kEps * std::sqrt(static_cast<double>(kRows)));
    else
      EXPECT_GT(error, 0.01);
  }
}

// Permuting the visible keys with their values changes nothing when there is no position: rows before the
// last.
TEST(SoftmaxAttention, PermutedKeysGiveTheSameLastRow) {
  const Case c(kPlain);
  KindInput reversed = c.input;
  for (Index t = 0; t + 1 < kRows; ++t)
    std::copy_n(c.input.inputs[0].begin() + (kRows - 2 - t) * kWidth, kWidth,
                reversed.inputs[0].begin() + t * kWidth);
  const auto last = [](const std::vector<float>& all) {
    return std::vector<double>(all.end() - kWidth, all.end());
  };
  EXPECT_LE(testing::relative_error(last(c.layer.run(c.input)), last(c.layer.run(reversed))),
            kStages * kEps * std::sqrt(static_cast<double>(kRows)));
}

// P_sink = sigmoid(lse - c) P_softmax: the sinks are a factor on each row's output (softmax-family 5.1,
// 1e-15).
TEST(SoftmaxAttention, SinkLogitsAreAGateOfTheLogSum) {
  for (const char* normaliser : {"softmax_one", "sink_softmax"}) {
    Json settings = kPlain;
    settings["normaliser"] = normaliser;
    auto values = OneKind::random_values(kKind, settings, surroundings(), 8);
    const std::vector<float> sinks = values.contains("sinks") ? values["sinks"] : std::vector<float>(4, 0.0f);
    const auto input = random_input(kRows, kWidth, 9);
    const OneKind layer(kKind, settings, surroundings(), values);
    auto plain = values;
    plain.erase("sinks");
    DoubleLoop loop(kPlain, plain, input);
    HeadRows& heads = loop.heads();
    loop.factor = [&](Index i, Index h) {
      double sum = 0;
      for (Index j = 0; j <= i; ++j) sum += std::exp(heads.dot(i, j, h) / std::sqrt(12.0));
      return 1 / (1 + std::exp(double{sinks[static_cast<std::size_t>(h)]} - std::log(sum)));
    };
    EXPECT_LE(testing::relative_error(layer.twin(input), loop.output()), 1e-14);
    expect_near(layer.run(input), loop.output(), kStages, kRows);
  }
}

TEST(SoftmaxAttention, AFarSinkIsNoSink) {
  Json settings = kPlain;
  settings["normaliser"] = "sink_softmax";
  auto values = OneKind::random_values(kKind, settings, surroundings(), 10);
  values["sinks"].assign(4, -1000.0f);  // e^-1000 vanishes in f32 and in double
  const auto input = random_input(kRows, kWidth, 11);
  const OneKind sink(kKind, settings, surroundings(), values);
  values.erase("sinks");
  const OneKind plain(kKind, kPlain, surroundings(), values);
  EXPECT_EQ(sink.twin(input), plain.twin(input));
  expect_near(sink.run(input), plain.twin(input), kStages, kRows);
}

TEST(SoftmaxAttention, AnOpenGateIsNoGateAndAZeroGateHalves) {
  Json settings = kPlain;
  settings["gate"] = "sigmoid";
  auto values = OneKind::random_values(kKind, settings, surroundings(), 12);
  values["gate"].assign(values["gate"].size(), 0.0f);
  const auto input = random_input(kRows, kWidth, 13);
  std::vector<double> half = OneKind(kKind, settings, surroundings(), values).twin(input);
  const std::vector<float> fast = OneKind(kKind, settings, surroundings(), values).run(input);
  values.erase("gate");
  const OneKind plain(kKind, kPlain, surroundings(), values);
  std::vector<double> expected = plain.twin(input);
  for (double& y : expected) y /= 2;
  EXPECT_LE(testing::relative_error(half, expected), 1e-15);
  expect_near(fast, expected, kStages, kRows);
}

// per_query_head packs [queries | gates] head by head: the same numbers as a separate gate.
TEST(SoftmaxAttention, PackedGateEqualsSeparateGate) {
  for (const char* granularity : {"elementwise", "headwise"}) {
    Json separate = kPlain;
    separate["gate"] = "sigmoid";
    separate["gate_granularity"] = granularity;
    separate["qk_norm"] = Json::object();
    separate["rope"] = {{"theta", 10000}};
    auto values = OneKind::random_values(kKind, separate, surroundings(), 14);
    const auto input = random_input(kRows, kWidth, 15);
    const std::vector<float> expected = OneKind(kKind, separate, surroundings(), values).run(input);
    Json packed = separate;
    packed["gate_packing"] = "per_query_head";
    const Index gate = std::string(granularity) == "headwise" ? 1 : 20;
    std::vector<float> q;
    for (Index h = 0; h < 4; ++h) {
      q.insert(q.end(), values["q"].begin() + h * 12 * kWidth, values["q"].begin() + (h + 1) * 12 * kWidth);
      q.insert(q.end(), values["gate"].begin() + h * gate * kWidth,
               values["gate"].begin() + (h + 1) * gate * kWidth);
    }
    values["q"] = q;
    values.erase("gate");
    EXPECT_TRUE(same_bits(OneKind(kKind, packed, surroundings(), values).run(input), expected))
        << granularity;
  }
}

// per_kv_group packs [queries of a group | its gates]: the same numbers again.
TEST(SoftmaxAttention, GateBehindItsGroupEqualsSeparateGate) {
  for (const char* granularity : {"elementwise", "headwise"}) {
    Json separate = kPlain;
    separate["gate"] = "sigmoid";
    separate["gate_granularity"] = granularity;
    auto values = OneKind::random_values(kKind, separate, surroundings(), 40);
    const auto input = random_input(kRows, kWidth, 41);
    const std::vector<float> expected = OneKind(kKind, separate, surroundings(), values).run(input);
    Json packed = separate;
    packed["gate_packing"] = "per_kv_group";
    const Index gates = 2 * (std::string(granularity) == "headwise" ? 1 : 20);
    std::vector<float> q;
    for (Index group = 0; group < 2; ++group) {
      q.insert(q.end(), values["q"].begin() + group * 24 * kWidth,
               values["q"].begin() + (group + 1) * 24 * kWidth);
      q.insert(q.end(), values["gate"].begin() + group * gates * kWidth,
               values["gate"].begin() + (group + 1) * gates * kWidth);
    }
    values["q"] = q;
    values.erase("gate");
    EXPECT_TRUE(same_bits(OneKind(kKind, packed, surroundings(), values).run(input), expected))
        << granularity;
  }
}

// SigGate-GT opens its gate by a bias: sigmoid(0.5) = .622 where the weight says nothing.
TEST(SoftmaxAttention, AGateMayHaveABias) {
  Json settings = kPlain;
  settings["gate"] = "sigmoid";
  settings["gate_bias"] = true;
  auto values = OneKind::random_values(kKind, settings, surroundings(), 42);
  values["gate"].assign(values["gate"].size(), 0.0f);
  values["gate_bias"].assign(values["gate_bias"].size(), 0.5f);
  const auto input = random_input(kRows, kWidth, 43);
  const OneKind layer(kKind, settings, surroundings(), values);
  values.erase("gate");
  values.erase("gate_bias");
  std::vector<double> expected = OneKind(kKind, kPlain, surroundings(), values).twin(input);
  for (double& y : expected) y /= 1 + std::exp(-0.5);
  EXPECT_LE(testing::relative_error(layer.twin(input), expected), 1e-14);
  expect_near(layer.run(input), expected, kStages, kRows);
}

TEST(SoftmaxAttention, GroupedHeadsEqualRepeatedKeys) {
  const Case c(kPlain);
  Json repeated = kPlain;
  repeated["num_kv_heads"] = 4;
  auto values = c.values;
  for (const auto& [name, rows] : {std::pair<const char*, Index>{"k", 12}, {"v", 20}}) {
    std::vector<float> all;
    for (Index h = 0; h < 4; ++h)
      all.insert(all.end(), values[name].begin() + h / 2 * rows * kWidth,
                 values[name].begin() + (h / 2 + 1) * rows * kWidth);
    values[name] = all;
  }
  EXPECT_TRUE(same_bits(OneKind(kKind, repeated, surroundings(), values).run(c.input), c.layer.run(c.input)));
}

// Rows of weights sum to 1, or to sigmoid(lse - c) < 1 with a sink; 1 <= |softmax|_F <= sqrt(N); a row's
// Jacobian has norm at most 1/2 (softmax-family 3.2).
TEST(SoftmaxAttention, WeightsKeepTheirBounds) {
  for (const char* normaliser : {"softmax", "softmax_one"})
    for (const Index n : {1, 2, 7, 64, 100})
      for (const double scale : {0.02, 0.25, 8.0}) {
        const testing::WeightProbe probe({{"scale", scale}, {"normaliser", normaliser}}, n, 16, 24, 16);
        const std::vector<double> weights = probe.weights(kKind);
        const bool plain = std::string(normaliser) == "softmax";
        double norm = 0;
        for (Index i = 0; i < n; ++i) {
          double sum = 0, second = 0, third = 0;
          for (Index j = 0; j < n; ++j) {
            const double p = weights[static_cast<std::size_t>(i * n + j)];
            EXPECT_GE(p, 0);
            EXPECT_TRUE(j <= i || p == 0);
            sum += p;
            second += p * p;
            third += p * p * p;
          }
          if (plain) {
            EXPECT_NEAR(sum, 1, 1e-13);
          } else {
            EXPECT_LE(sum, scale < 1 ? 0.9999 : 1 + 1e-13);
          }
          EXPECT_LE(second - 2 * third + second * second, 0.25 + 1e-13);
          norm += second;
        }
        EXPECT_LE(norm, static_cast<double>(n) * (1 + 1e-13));
        EXPECT_TRUE(!plain || norm >= 1 - 1e-13);
      }
}

// -- Sites

TEST(SoftmaxAttentionSites, HeadZeroAndScale) {
  Case c(kPlain);
  c.loop.factor = [](Index, Index h) { return h == 1 ? 0.0 : h == 3 ? -0.5 : 1.0; };
  c.expect(all_rows(
      c, {inner_edit(Site::head, Operator::zero, {1}), inner_edit(Site::head, Operator::scale, {3}, -0.5)}));
}

TEST(SoftmaxAttentionSites, KnockoutHidesKeysOfNamedHeads) {
  Case c(kPlain);
  Edit knockout = inner_edit(Site::score, Operator::knockout, {0, 3});
  knockout.key_begin = 10;
  knockout.key_end = 77;
  c.loop.visible = [](Index, Index j, Index h) { return h == 1 || h == 2 || j < 10 || j >= 77; };
  c.expect(all_rows(c, {knockout}));
  // Nothing left: zero, not NaN.
  knockout.key_begin = 0;
  knockout.key_end = kRows;
  knockout.heads = {};
  for (const float y : all_rows(c, {knockout})) EXPECT_EQ(y, 0);
}

// Weight := 0 without a new sum: what the other keys give does not change.
TEST(SoftmaxAttentionSites, ZeroedScoresKeepTheirMass) {
  Case c(kPlain);
  Edit zero = inner_edit(Site::score, Operator::zero, {0, 3});
  zero.key_begin = 10;
  zero.key_end = 77;
  c.loop.weighs = [](Index, Index j, Index h) { return h == 1 || h == 2 || j < 10 || j >= 77; };
  c.expect(all_rows(c, {zero}));
  zero.key_begin = 0;
  zero.key_end = kRows;
  zero.heads = {};
  for (const float y : all_rows(c, {zero})) EXPECT_EQ(y, 0);
}

TEST(SoftmaxAttentionSites, WhatHidesNothingChangesNoBit) {
  const Case c(kPlain);
  const std::vector<float> plain = c.layer.run(c.input);
  Edit far = inner_edit(Site::score, Operator::knockout);
  far.key_begin = kRows;
  far.key_end = kRows + 5;
  EXPECT_TRUE(same_bits(all_rows(c, {far}), plain));
  far.op = Operator::zero;
  EXPECT_TRUE(same_bits(all_rows(c, {far}), plain));
  EXPECT_TRUE(same_bits(all_rows(c, {inner_edit(Site::window, Operator::set, {}, kRows)}), plain));
  EXPECT_TRUE(same_bits(all_rows(c, {inner_edit(Site::sinks, Operator::mask, {}, 0)}), plain));
}

// A mean in place of o; noise of size 0 changes no bit; rows of another run in their places.
TEST(SoftmaxAttentionSites, HeadMeanNoiseAndResample) {
  Case c(kPlain);
  Edit mean = inner_edit(Site::head, Operator::mean);
  mean.values = std::vector<double>(4 * 20, 0.0);
  EXPECT_TRUE(same_bits(all_rows(c, {mean}), all_rows(c, {inner_edit(Site::head, Operator::zero)})));
  mean.heads = {1};
  for (Index i = 20; i < 40; ++i) mean.values[static_cast<std::size_t>(i)] = 0.01 * static_cast<double>(i);
  c.loop.head = [](Index, Index h, Index i, double o) {
    return h == 1 ? 0.01 * static_cast<double>(20 + i) : o;
  };
  c.expect(all_rows(c, {mean}));
  EXPECT_TRUE(same_bits(all_rows(c, {inner_edit(Site::head, Operator::noise, {}, 0)}), c.layer.run(c.input)));
  Edit resample = inner_edit(Site::head, Operator::resample, {2});
  for (Index i = 0; i < kRows * 80; ++i) resample.values.push_back(0.001 * static_cast<double>(i % 977));
  c.loop.head = [](Index t, Index h, Index i, double o) {
    return h == 2 ? 0.001 * static_cast<double>((t * 80 + 40 + i) % 977) : o;
  };
  c.expect(all_rows(c, {resample}));
}

// A gate of a constant is a scale of what it gates.
TEST(SoftmaxAttentionSites, GateMeanIsAScale) {
  for (const char* granularity : {"elementwise", "headwise"}) {
    Json settings = kPlain;
    settings["gate"] = "sigmoid";
    settings["gate_granularity"] = granularity;
    const Case c(settings);
    EXPECT_TRUE(same_bits(all_rows(c, {inner_edit(Site::gate, Operator::mean, {}, 0.375)}),
                          all_rows(c, {inner_edit(Site::gate, Operator::one),
                                       inner_edit(Site::head, Operator::scale, {}, 0.375)})));
  }
}

TEST(SoftmaxAttentionSites, WindowSetIsExactlyAWindow) {
  Case c(kPlain);
  Edit set = inner_edit(Site::window, Operator::set, {}, 30);
  set.sinks = 4;
  c.loop.visible = [](Index i, Index j, Index) { return j > i - 30 || j < 4; };
  c.expect(all_rows(c, {set}));
  // The same bits as a layer that is built so: the visible keys decide, not the way they were chosen.
  Json windowed = kPlain;
  windowed["window"] = 30;
  windowed["sinks"] = 4;
  EXPECT_TRUE(same_bits(all_rows(c, {set}), OneKind(kKind, windowed, surroundings(), c.values).run(c.input)));
  // On a layer with a window of its own both hold.
  const OneKind own(kKind, windowed, surroundings(), c.values);
  set.value = 50;
  set.sinks = 2;
  c.loop.visible = [](Index i, Index j, Index) { return (j > i - 30 || j < 4) && (j > i - 50 || j < 2); };
  c.expect(testing::run_pieces(own, c.input, {{0, kRows, {set}}}));
}

TEST(SoftmaxAttentionSites, SinkMaskHidesFirstKeys) {
  Case c(kPlain);
  c.loop.visible = [](Index, Index j, Index h) { return h != 2 || j >= 13; };
  c.expect(all_rows(c, {inner_edit(Site::sinks, Operator::mask, {2}, 13)}));
}

TEST(SoftmaxAttentionSites, SkippedRowsAreNeverSeen) {
  Case c(kPlain);
  const std::vector<float> y =
      testing::run_pieces(c.layer, c.input, {{0, 20}, {20, 75, {}, true}, {75, kRows}});
  c.loop.visible = [](Index, Index j, Index) { return j < 20 || j >= 75; };
  std::vector<double> expected = c.loop.output();
  std::fill(expected.begin() + 20 * kWidth, expected.begin() + 75 * kWidth, 0.0);
  expect_near(y, expected, kStages, kRows);
}

TEST(SoftmaxAttentionSites, GateOneOpensNamedHeads) {
  Json settings = kPlain;
  settings["gate"] = "sigmoid";
  Case c(settings);
  c.loop.gated = [](Index, Index h) { return h != 2; };
  c.expect(all_rows(c, {inner_edit(Site::gate, Operator::one, {2})}));
}

TEST(SoftmaxAttentionSites, PositionNoneIsNoRope) {
  Json rotary = kPlain;
  rotary["rope"] = {{"theta", 10000}};
  const Case c(rotary);
  const OneKind plain(kKind, kPlain, surroundings(), c.values);
  EXPECT_TRUE(same_bits(all_rows(c, {inner_edit(Site::position, Operator::none)}), plain.run(c.input)));
}

TEST(SoftmaxAttentionSites, PositionShiftMovesOnlyTheRowsItCovers) {
  Json rotary = kPlain;
  rotary["rope"] = {{"theta", 10000}};
  Case c(rotary);
  const auto shift = inner_edit(Site::position, Operator::shift, {}, 17.5);
  // Every row shifted: distances stay, so only roundings differ.
  c.expect(all_rows(c, {shift}));
  // From row 60 on: queries and keys of those rows turn by 17.5 more positions.
  const RopeSettings rope = *c.loop.heads().settings.rope;
  HeadRows& heads = c.loop.heads();
  for (Index t = 60; t < kRows; ++t) {
    for (Index h = 0; h < 4; ++h) rotate_head(rope, 17.5, heads.rows.q.data() + (t * 4 + h) * 12);
    for (Index h = 0; h < 2; ++h) rotate_head(rope, 17.5, heads.rows.k.data() + (t * 2 + h) * 12);
  }
  c.expect(testing::run_pieces(c.layer, c.input, {{0, 60}, {60, kRows, {shift}}}));
}

TEST(SoftmaxAttentionSites, QkNormOffIsALayerWithoutIt) {
  Json normed = kPlain;
  normed["qk_norm"] = {{"form", "one_plus"}};
  const Case c(normed);
  auto values = c.values;
  values.erase("q_norm");
  values.erase("k_norm");
  const OneKind plain(kKind, kPlain, surroundings(), values);
  EXPECT_TRUE(same_bits(all_rows(c, {inner_edit(Site::qk_norm, Operator::off)}), plain.run(c.input)));
  // Keys are shared by heads 0 and 1: one of them alone cannot be meant.
  EXPECT_THROW(all_rows(c, {inner_edit(Site::qk_norm, Operator::off, {1})}), Error);
  EXPECT_NO_THROW(all_rows(c, {inner_edit(Site::qk_norm, Operator::off, {0, 1})}));
}

TEST(SoftmaxAttention, RefusesWhatItCannotMean) {
  const auto refuse = [](const char* key, const Json& value) {
    Json settings = kPlain;
    settings[key] = value;
    Config config("blocks.0.mixer", settings, surroundings());
    try {
      read_softmax_attention(config);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refuse("score", {"alibi"}).find("scaled_dot"), std::string::npos);
  EXPECT_NE(refuse("score", Json::array()).find("scaled_dot"), std::string::npos);
  EXPECT_NE(refuse("score", {"scaled_dot", "scaled_dot"}).find("more than once"), std::string::npos);
  EXPECT_NE(refuse("score", {"scaled_dot", "integral_attention"}).find("comes first"), std::string::npos);
  EXPECT_NE(refuse("score", {"scaled_dot", "entmax"}).find("entmax"), std::string::npos);
  EXPECT_NE(refuse("alibi", Json::object()).find("alibi"), std::string::npos);  // not in the list
  EXPECT_NE(refuse("readout", "entmax").find("entmax"), std::string::npos);
  EXPECT_NE(refuse("normaliser", "entmax").find("entmax"), std::string::npos);
  EXPECT_NE(refuse("gate", "silu").find("silu"), std::string::npos);
  EXPECT_NE(refuse("num_kv_heads", 3).find("num_kv_heads"), std::string::npos);
  EXPECT_NE(refuse("sinks", 4).find("sinks"), std::string::npos);
  EXPECT_NE(refuse("gate_packing", "per_query_head").find("gate_packing"), std::string::npos);
  EXPECT_NE(refuse("gate_bias", true).find("gate_bias"), std::string::npos);
  EXPECT_NE(refuse("head_width", 4).find("head_width"), std::string::npos);
}

// -- The walk itself

// A rule with a second accumulator that ignores the maximum, the plain mean of the visible values: o = A0 / l
// - A1 / n.
class MeanDifference final : public KeyRule {
 public:
  bool tracks_maximum() const override { return true; }
  bool start(const QueryRow&, float&, float&) const override { return false; }
  void logits(const QueryRow&, Index first, Index count, const double* side, float* s,
              const Kernels&) const override {
    for (Index i = 0; i < count; ++i) {
      EXPECT_EQ(side[i], static_cast<double>(first + i));  // the side column holds the key's position
      s[i] += static_cast<float>(side[i]) * 0.01f;
    }
  }
  void numerators(const QueryRow&, float maximum, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    k.exp_minus(s, maximum, p, count);
  }
  Index accumulators() const override { return 2; }
  bool follows_maximum(Index accumulator) const override { return accumulator == 0; }
  void weights(Index, const float*, const float*, float* w, Index count, const Kernels&) const override {
    std::fill_n(w, count, 1.0f);
  }
  void finish(const QueryRow& row, const RowSums& all, Index width, const Kernels&) const override {
    const auto seen = static_cast<float>(row.visible_count());
    for (Index c = 0; c < width; ++c) row.out[c] = all.sums[c] / all.mass - all.sums[width + c] / seen;
  }
};

// Keys, values and positions in plain arrays; pages end every `page` positions.
class ArrayCache final : public KeyCache {
 public:
  ArrayCache(Index tokens, Index width, Index values, Index page)
      : keys(Numbers(20).normals(width * tokens)),
        all_values(Numbers(21).normals(tokens * values)),
        page_(page),
        tokens_(tokens),
        values_(values) {
    for (Index t = 0; t < tokens; ++t) side.push_back(static_cast<double>(t));
  }
  KeyPage page(Index position, Index) const override {
    const Index count = std::min(page_ - position % page_, tokens_ - position);
    return {count,
            {keys.data() + position, tokens_},
            false,
            {all_values.data() + position * values_, values_},
            side.data() + position,
            0};
  }
  std::vector<float> keys;        // [width][tokens]
  std::vector<float> all_values;  // [tokens][values]
  std::vector<double> side;

 private:
  Index page_, tokens_, values_;
};

TEST(KeyWalk, CarriesSideColumnsAndAccumulatorsThroughRaggedRanges) {
  constexpr Index kTokens = 300, kKeyWidth = 7, kValues = 37, kQueries = 40;
  const ArrayCache cache(kTokens, kKeyWidth, kValues, 48);
  const std::vector<float> queries = Numbers(22).normals(kQueries * kKeyWidth);
  std::vector<std::vector<KeyRange>> visible;
  for (Index r = 0; r < kQueries; ++r)
    visible.push_back({{r % 3, 5}, {40 + r, 41 + 2 * r}, {130, 200 + 2 * r}});
  const auto walk = [&](Index tile, int threads, Index page) {
    const ArrayCache other(kTokens, kKeyWidth, kValues, page);
    std::vector<float> out(kQueries * kValues);
    std::vector<QueryRow> rows;
    for (Index r = 0; r < kQueries; ++r)
      rows.push_back({queries.data() + r * kKeyWidth, out.data() + r * kValues, kTokens - 1, 0,
                      visible[static_cast<std::size_t>(r)], 0});
    std::vector<KeyTile> tiles;
    for (Index r = 0; r < kQueries; r += tile)
      tiles.push_back(
          {&other, 0, std::span(rows).subspan(static_cast<std::size_t>(r), static_cast<std::size_t>(tile))});
    walk_keys(tiles, MeanDifference(), kKeyWidth, kValues, {32, 32, 128},
              {Numerics::exact, Isa::automatic, threads});
    return out;
  };
  const std::vector<float> whole = walk(kQueries, 1, 64);
  for (const Index tile : {1, 5, 20})
    for (const int threads : {1, 3})
      for (const Index page : {16, 48, 300})
        EXPECT_TRUE(same_bits(walk(tile, threads, page), whole))
            << tile << " rows, " << threads << " threads";

  std::vector<double> expected;
  for (Index r = 0; r < kQueries; ++r) {
    std::vector<double> weighted(kValues), plain(kValues);
    double mass = 0, seen = 0;
    for (const KeyRange& range : visible[static_cast<std::size_t>(r)])
      for (Index j = range.begin; j < range.end; ++j, ++seen) {
        double s = 0.01 * static_cast<double>(j);
        for (Index c = 0; c < kKeyWidth; ++c)
          s += double{queries[static_cast<std::size_t>(r * kKeyWidth + c)]} *
               double{cache.keys[static_cast<std::size_t>(c * kTokens + j)]};
        mass += std::exp(s);
        for (Index c = 0; c < kValues; ++c) {
          const double v = cache.all_values[static_cast<std::size_t>(j * kValues + c)];
          weighted[static_cast<std::size_t>(c)] += std::exp(s) * v;
          plain[static_cast<std::size_t>(c)] += v;
        }
      }
    for (std::size_t c = 0; c < weighted.size(); ++c)
      expected.push_back(weighted[c] / mass - plain[c] / seen);
  }
  expect_near(whole, expected, kStages, 200);
}

}  // namespace
}  // namespace plait
