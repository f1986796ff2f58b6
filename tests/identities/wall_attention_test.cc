#include <gtest/gtest.h>

#include "tests/identities/attention_rows.h"
#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 150, kWidth = 40;  // two blocks of 64 and a part of a third
const Json kSettings = {{"num_heads", 4},
                        {"num_kv_heads", 2},
                        {"head_dim", 24},
                        {"value_head_dim", 40},
                        {"qk_norm", {{"eps", 1e-5}}}};

// Projections, a query with its keys, the sum over tokens and the output projection.
constexpr double kLength = kWidth + 24 + kRows + 160;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

// Gates of 0.5 to 1, most of them open: keys of all blocks count.
OneKind::Values values_of(const Json& settings) {
  OneKind::Values values = OneKind::random_values("wall_attention", settings, surroundings(), 1);
  for (float& bias : values.at("decay_bias")) bias += 4;
  return values;
}
OneKind layer(const Json& settings, const OneKind::Values& values) {
  return OneKind("wall_attention", settings, surroundings(), values);
}
OneKind layer(const Json& settings) { return layer(settings, values_of(settings)); }

// In double, as a recurrence: every token multiplies the channels of all keys before it by its gates.
class WallDefinition {
 public:
  using Rows = reference::Rows;

  WallDefinition(const Json& settings, const OneKind::Values& values)
      : s_(settings),
        w_([&] {
          std::map<std::string, Tensor> tensors;
          for (const auto& [name, numbers] : values)
            tensors[name] = make_tensor({static_cast<Index>(numbers.size())}, numbers);
          return Parameters(tensors);
        }()),
        heads_(settings.at("num_heads")),
        kv_heads_(settings.value("num_kv_heads", heads_)),
        d_(settings.at("head_dim")),
        dv_(settings.value("value_head_dim", d_)) {}

  // Tokens of [begin, end) do not exist; their rows are 0.
  void skip(Index begin, Index end) { hole_begin_ = begin, hole_end_ = end; }

  std::vector<double> run(const KindInput& input, const RangeEdit& e = {}) const {
    const std::vector<double> wide = widen(input.inputs[0]);
    const View<const double> x(wide.data(), input.rows, kWidth);
    const Rows q = normed("q", x, heads_, e), k = normed("k", x, kv_heads_, e), v = w_.project("v", x);
    const Rows gates = w_.project("decay", x);
    const Rows forget = s_.value("forget_gate", false) ? w_.project("forget", x) : Rows(x.rows, heads_);
    Rows keys(x.rows, heads_ * d_), o(x.rows, heads_ * dv_);
    const Index group = heads_ / kv_heads_;
    for (Index t = 0; t < x.rows; ++t) {
      if (hole(t)) continue;
      for (Index h = 0; h < heads_; ++h) {
        for (Index c = h * d_; c < (h + 1) * d_; ++c) {
          const double gate = edited(reference::sigmoid(gates(t, c) + w_.at("decay_bias", c)), e, t, h, c);
          for (Index j = 0; j < t; ++j) keys(j, c) *= gate;
          keys(t, c) = k(t, h / group * d_ + c % d_);
        }
        attend(q, keys, v, forget, t, h, e, o.row(t) + h * dv_);
      }
    }
    return w_.project("o", o.view()).data;
  }

 private:
  bool hole(Index t) const { return t >= hole_begin_ && t < hole_end_; }
  double scale() const { return s_.value("scale", 1 / std::sqrt(static_cast<double>(d_))); }

  static double edited(double gate, const RangeEdit& e, Index t, Index h, Index channel) {
    if (e.at(Site::decay, Operator::one, t, h)) return 1;
    if (e.at(Site::decay, Operator::zero, t, h)) return 0;
    if (!e.at(Site::decay, Operator::constant, t, h)) return gate;
    const std::vector<double>& values = e.edit.values;
    return std::exp(values.empty() ? e.edit.value : values[static_cast<std::size_t>(channel)]);
  }

  static bool hidden(const RangeEdit& e, Index t, Index j, Index h) {
    const bool covered = j >= e.edit.key_begin && j < e.edit.key_end;
    const auto value = static_cast<Index>(e.edit.value);
    return (e.at(Site::score, Operator::knockout, t, h) && covered) ||
           (e.at(Site::sinks, Operator::mask, t, h) && j < value) ||
           (e.at(Site::window, Operator::set, t, h) && j <= t - value && j >= e.edit.sinks);
  }

  void attend(const Rows& q, const Rows& keys, const Rows& v, const Rows& forget, Index t, Index h,
              const RangeEdit& e, double* out) const {
    std::vector<double> s;
    std::vector<Index> seen;
    for (Index j = 0; j <= t; ++j) {
      if (hole(j) || hidden(e, t, j, h) || (s_.contains("window") && t - j >= s_["window"].get<Index>()))
        continue;
      s.push_back(scale() *
                  std::inner_product(q.row(t) + h * d_, q.row(t) + (h + 1) * d_, keys.row(j) + h * d_, 0.0));
      for (Index i = j + 1; s_.value("forget_gate", false) && i <= t; ++i)
        if (!hole(i)) s.back() += std::log(reference::sigmoid(forget(i, h) + w_.at("forget_bias", h)));
      seen.push_back(j);
    }
    double mass = 0;
    for (double& value : s) mass += value = std::exp(value);
    if (s_.contains("normaliser")) mass += std::exp(w_.at("sinks", h));
    for (std::size_t i = 0; i < s.size(); ++i) {
      const bool muted =
          e.at(Site::score, Operator::zero, t, h) && seen[i] >= e.edit.key_begin && seen[i] < e.edit.key_end;
      for (Index c = 0; !muted && c < dv_; ++c)
        out[c] += s[i] / mass * v(seen[i], h / (heads_ / kv_heads_) * dv_ + c);
    }
    edit_head(e, t, h, heads_, out, dv_);
    if (e.at(Site::head, Operator::scale, t, h))
      for (Index c = 0; c < dv_; ++c) out[c] *= e.edit.value;
  }

  Rows normed(const std::string& name, View<const double> x, Index heads, const RangeEdit& e) const {
    Rows rows = w_.project(name, x);
    if (!s_.contains("qk_norm")) return rows;
    Rows norm = rows;
    reference::rms_normalise(norm, d_, 1e-5, w_[name + "_norm"]);
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < heads; ++h)
        if (!e.at(Site::qk_norm, Operator::off, t, h * (heads_ / heads)))
          std::copy_n(norm.row(t) + h * d_, d_, rows.row(t) + h * d_);
    return rows;
  }

  Json s_;
  reference::Weights w_;
  Index heads_, kv_heads_, d_, dv_;
  Index hole_begin_ = 0, hole_end_ = 0;
};

const std::vector<Json> kForms = {
    Json{{"num_heads", 2}, {"head_dim", 24}},
    kSettings,
    Json{{"num_heads", 3}, {"num_kv_heads", 1}, {"head_dim", 40}, {"value_head_dim", 24}, {"scale", 0.7}},
    Json{{"num_heads", 1}, {"head_dim", 9}},
    Json{{"num_heads", 2}, {"num_kv_heads", 1}, {"head_dim", 12}, {"window", 70}},
    Json{{"num_heads", 2}, {"head_dim", 12}, {"window", 3}, {"normaliser", "sink_softmax"}},
    Json{{"num_heads", 2}, {"head_dim", 12}, {"normaliser", "sink_softmax"}},
    Json{{"num_heads", 2}, {"num_kv_heads", 1}, {"head_dim", 12}, {"forget_gate", true}},
    Json{{"num_heads", 2}, {"head_dim", 12}, {"forget_gate", true}, {"window", 70}}};

// Differences of sums are products of gates: 150 roundings of double on each side.
TEST(WallAttention, SumsOfLogsAreProductsOfGates) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& settings : kForms) {
    SCOPED_TRACE(settings.dump());
    const std::vector<double> product = WallDefinition(settings, values_of(settings)).run(input);
    EXPECT_LE(relative_error(layer(settings).twin(input), product), 1e-13);
  }
}

TEST(WallAttention, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 3);
  for (const Json& settings : kForms) {
    SCOPED_TRACE(settings.dump());
    const OneKind kind = layer(settings);
    expect_near(kind.run(input), kind.twin(input), 8, kLength);
  }
}

TEST(WallAttention, AnySplit) {
  const KindInput input = random_input(kRows, kWidth, 4);
  for (const Json& settings : kForms) {
    const OneKind kind = layer(settings);
    const std::vector<float> whole = kind.run(input);
    for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {7, 64, 1}, {63, 2}})
      EXPECT_TRUE(same_bits(kind.run(input, {.split = split}), whole)) << split[0];
  }
}

void set_gates(float bias, OneKind::Values& values) {
  std::fill(values.at("decay").begin(), values.at("decay").end(), 0.0f);
  std::fill(values.at("decay_bias").begin(), values.at("decay_bias").end(), bias);
}

// g = 0: attention without positions.
TEST(WallAttention, OpenGatesAreSoftmaxAttention) {
  OneKind::Values values = values_of(kSettings);
  set_gates(60, values);
  const KindInput input = random_input(kRows, kWidth, 5);
  const OneKind open = layer(kSettings, values);
  for (const char* name : {"decay", "decay_bias"}) values.erase(name);
  const OneKind plain("softmax_attention", kSettings, surroundings(), values);
  EXPECT_LE(relative_error(open.twin(input), plain.twin(input)), 1e-14);
  expect_near(open.run(input), plain.twin(input), 8, kLength);
  EXPECT_GE(relative_error(layer(kSettings).twin(input), plain.twin(input)), 0.05);
}

// A constant gate a on all channels: the logit at distance n is a^n q.k.
TEST(WallAttention, ConstantGatesAreAFixedDecay) {
  const Json settings = {{"num_heads", 1}, {"head_dim", 24}};
  OneKind::Values values = values_of(settings);
  set_gates(std::log(19.0f), values);  // sigmoid of it is 0.95
  const KindInput input = random_input(kRows, kWidth, 6);
  const double gate = reference::sigmoid(static_cast<double>(std::log(19.0f)));
  const reference::Weights weights(
      parameters_of(Registry::builtin()
                        .find("wall_attention")
                        .tensors(*std::make_unique<Config>("tested", settings, surroundings())),
                    values));
  const std::vector<double> wide = widen(input.inputs[0]);
  const View<const double> x(wide.data(), input.rows, kWidth);
  const reference::Rows q = weights.project("q", x), k = weights.project("k", x), v = weights.project("v", x);
  reference::Rows o(input.rows, 24);
  for (Index i = 0; i < input.rows; ++i) {
    double mass = 0;
    std::vector<double> p;
    for (Index j = 0; j <= i; ++j) {
      const double dot = std::inner_product(q.row(i), q.row(i) + 24, k.row(j), 0.0);
      p.push_back(std::exp(std::pow(gate, static_cast<double>(i - j)) * dot / std::sqrt(24.0)));
      mass += p.back();
    }
    for (Index j = 0; j <= i; ++j)
      for (Index c = 0; c < 24; ++c) o(i, c) += p[static_cast<std::size_t>(j)] / mass * v(j, c);
  }
  const std::vector<double> expected = weights.project("o", o.view()).data;
  EXPECT_LE(relative_error(layer(settings, values).twin(input), expected), 1e-13);
  expect_near(layer(settings, values).run(input), expected, 8, kLength);
}

// Gates that the first column of x opens and shuts, down to e^-2000 a token: no exponent is positive, so
// nothing overflows. The column is -1, 0 or 1, so that a gate is not amplified rounding.
TEST(WallAttention, ShutGatesStayFinite) {
  OneKind::Values values = values_of(kSettings);
  set_gates(5, values);
  std::vector<float>& decay = values.at("decay");
  for (std::size_t c = 0; c < decay.size() / kWidth; ++c)
    decay[c * kWidth] = std::vector<float>{0, 5, 40, 2000}[c % 4];
  KindInput input = random_input(kRows, kWidth, 7);
  for (Index t = 0; t < kRows; ++t)
    input.inputs[0][static_cast<std::size_t>(t * kWidth)] = t % 11 == 3 || t % 29 > 26 ? -1.0f : t % 2 * 1.0f;
  const OneKind kind = layer(kSettings, values);
  expect_near(kind.run(input), kind.twin(input), 8, kLength);
  EXPECT_TRUE(same_bits(kind.run(input, {.split = {5}}), kind.run(input)));
}

// Every site and operator against its definition, over rows that begin and end inside blocks, on all heads
// and on the second group's; and each changes something.
TEST(WallAttention, EditsAsDefined) {
  const OneKind kind = layer(kSettings);
  const WallDefinition definition(kSettings, values_of(kSettings));
  const KindInput input = random_input(kRows, kWidth, 8);
  const std::vector<float> plain = kind.run(input);
  for (const SiteSpec& site : kind.layer().sites())
    for (const Operator op : site.operators)
      for (const std::vector<Index>& heads : std::vector<std::vector<Index>>{{}, {2, 3}})
        for (const RangeEdit& range : range_edits(site, op, 50, 140, heads)) {
          SCOPED_TRACE(describe(range.edit) + (heads.empty() ? "" : " heads 2 and 3"));
          const std::vector<float> edited = run_edited(kind, input, range);
          expect_near(edited, definition.run(input, range), 8, kLength);
          EXPECT_FALSE(same_bits(edited, plain));
        }
}

// Skipped tokens gate nothing and are not met, also where they fill whole blocks or the rows at which keys
// and queries would meet. With gates shut half way (second pass: sums of -80 and less within a block) a
// meeting at such a row would overflow.
TEST(WallAttention, SkippedTokensAreNotThere) {
  const KindInput input = random_input(230, kWidth, 9);
  for (const float shift : {0.0f, -5.0f}) {
    Json settings = kSettings;
    settings["forget_gate"] = shift == 0;
    OneKind::Values values = values_of(settings);
    for (float& bias : values.at("decay_bias")) bias += shift;
    const OneKind kind = layer(settings, values);
    WallDefinition definition(settings, values);
    for (const auto& [begin, end] :
         std::vector<std::pair<Index, Index>>{{10, 20}, {50, 200}, {60, 128}, {0, 70}, {125, 130}}) {
      SCOPED_TRACE(begin);
      definition.skip(begin, end);
      const std::vector<float> y = run_pieces(kind, input, {{0, begin}, {begin, end, {}, true}, {end, 230}});
      expect_near(y, definition.run(input), 8, kLength + 80);
    }
  }
}

// Every site with a window, a sink and a forget gate, too.
TEST(WallAttention, EditsAsDefinedInAWindow) {
  const Json settings = {{"num_heads", 4},     {"num_kv_heads", 2},          {"head_dim", 12},
                         {"window", 40},       {"qk_norm", {{"eps", 1e-5}}}, {"normaliser", "sink_softmax"},
                         {"forget_gate", true}};
  const OneKind kind = layer(settings);
  const WallDefinition definition(settings, values_of(settings));
  const KindInput input = random_input(kRows, kWidth, 10);
  for (const SiteSpec& site : kind.layer().sites())
    for (const Operator op : site.operators)
      for (const RangeEdit& range : range_edits(site, op, 50, 140, {2, 3})) {
        SCOPED_TRACE(describe(range.edit));
        expect_near(run_edited(kind, input, range), definition.run(input, range), 8, kLength);
      }
}

// A row's mass beside a sink c is that of softmax times sigmoid(ln sum e^s - c): far below, it is none; and a
// window as long as the text is none either.
TEST(WallAttention, AFarSinkAndAWideWindowAreNone) {
  OneKind::Values values = values_of(kSettings);
  const KindInput input = random_input(kRows, kWidth, 11);
  const std::vector<float> plain = layer(kSettings, values).run(input);
  Json settings = kSettings;
  settings["window"] = kRows;
  EXPECT_TRUE(same_bits(layer(settings, values).run(input), plain));
  settings["normaliser"] = "sink_softmax";
  values["sinks"].assign(4, -200.0f);  // e^-190 is 0 beside any mass
  EXPECT_LE(relative_error(layer(settings, values).twin(input), layer(kSettings).twin(input)), 1e-14);
  EXPECT_TRUE(same_bits(layer(settings, values).run(input), plain));
  values["sinks"].assign(4, 200.0f);  // takes everything
  for (const float y : layer(settings, values).run(input)) EXPECT_LT(std::abs(y), 1e-30f);
}

TEST(WallAttention, RefusesWhatItDoesNotKnow) {
  for (const Json& more : {Json{{"num_kv_heads", 3}}, Json{{"rope", {{"theta", 10000}}}},
                           Json{{"forget_gates", true}}, Json{{"normaliser", "softmax_one"}}}) {
    Json settings = kSettings;
    settings.update(more);
    EXPECT_THROW(layer(settings), Error) << more;
  }
}

}  // namespace
}  // namespace plait
