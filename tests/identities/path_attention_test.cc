#include <gtest/gtest.h>

#include "tests/identities/attention_rows.h"
#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kRows = 150, kWidth = 40;  // two blocks of 64 and a part of a third
const Json kSettings = {{"num_heads", 4},       {"num_kv_heads", 2},   {"head_dim", 24},
                        {"value_head_dim", 40}, {"forget_gate", true}, {"qk_norm", {{"eps", 1e-5}}}};

// Projections, products of a query with keys and directions, the sum over tokens and the output projection.
constexpr double kLength = kWidth + 24 + kRows + 160;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values values_of(const Json& settings) {
  return OneKind::random_values("path_attention", settings, surroundings(), 1);
}
OneKind layer(const Json& settings) {
  return OneKind("path_attention", settings, surroundings(), values_of(settings));
}

// The form in which fla decodes, in double: every token changes all keys before it.
class PathDefinition {
 public:
  using Rows = reference::Rows;

  PathDefinition(const Json& settings, const OneKind::Values& values)
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

  std::vector<double> run(const KindInput& input, const RangeEdit& e) const {
    const std::vector<double> wide = widen(input.inputs[0]);
    const View<const double> x(wide.data(), input.rows, kWidth);
    const Rows q = normed("q", x, heads_, e), v = w_.project("v", x), w = directions(x, e),
               sums = decay_sums(x, e);
    Rows k = normed("k", x, kv_heads_, e), o(x.rows, heads_ * dv_);
    const Index group = heads_ / kv_heads_;
    for (Index t = 0; t < x.rows; ++t) {
      if (hole(t)) continue;
      for (Index h = 0; h < kv_heads_; ++h)
        if (!e.at(Site::position, Operator::none, t, h * group)) move_keys(x, w, t, h, k);
      for (Index h = 0; h < heads_; ++h) {
        std::vector<double> s;
        std::vector<Index> keys;
        for (Index j = 0; j <= t; ++j) {
          if (hole(j) || hidden(e, t, j, h)) continue;
          const double dot =
              std::inner_product(q.row(t) + h * d_, q.row(t) + (h + 1) * d_, k.row(j) + h / group * d_, 0.0);
          s.push_back(scale() * (dot + sums(t, h) - sums(j, h)));
          keys.push_back(j);
        }
        double mass = 0, *out = o.row(t) + h * dv_;
        for (double& value : s) mass += value = std::exp(value);
        for (std::size_t i = 0; i < s.size(); ++i) {
          const bool muted = e.at(Site::score, Operator::zero, t, h) && keys[i] >= e.edit.key_begin &&
                             keys[i] < e.edit.key_end;
          for (Index c = 0; !muted && c < dv_; ++c) out[c] += s[i] / mass * v(keys[i], h / group * dv_ + c);
        }
        edit_head(e, t, h, heads_, out, dv_);
        if (e.at(Site::head, Operator::scale, t, h))
          for (Index c = 0; c < dv_; ++c) out[c] *= e.edit.value;
      }
    }
    return w_.project("o", o.view()).data;
  }

 private:
  bool hole(Index t) const { return t >= hole_begin_ && t < hole_end_; }
  double scale() const { return s_.value("scale", 1 / std::sqrt(static_cast<double>(d_))); }

  static bool hidden(const RangeEdit& e, Index t, Index j, Index h) {
    const bool covered = j >= e.edit.key_begin && j < e.edit.key_end;
    const auto value = static_cast<Index>(e.edit.value);
    return (e.at(Site::score, Operator::knockout, t, h) && covered) ||
           (e.at(Site::sinks, Operator::mask, t, h) && j < value);
  }

  void move_keys(View<const double> x, const Rows& w, Index t, Index h, Rows& k) const {
    const double beta = 2 * reference::sigmoid(w_.project("beta", x)(t, h) + w_.at("beta_bias", h));
    const double* direction = w.row(t) + h * d_;
    for (Index j = 0; j < t; ++j) {
      double* key = k.row(j) + h * d_;
      const double along = beta * std::inner_product(key, key + d_, direction, 0.0);
      for (Index c = 0; c < d_; ++c) key[c] -= along * direction[c];
    }
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

  Rows directions(View<const double> x, const RangeEdit& e) const {
    const bool low_rank = s_.value("w_rank", 32) > 0;
    Rows w = low_rank ? w_.project("w", w_.project("w_down", x).view()) : w_.project("w", x);
    if (const Index taps = s_.value("conv", 3); taps > 0) {
      const Rows plain = w;
      w = w_.convolve("w_conv", w);
      for (Index t = 0; t < w.rows; ++t)
        for (Index c = 0; c < w.cols; ++c) {
          if (e.at(Site::conv, Operator::identity, t, 0)) w(t, c) = plain(t, c);
          if (e.at(Site::conv, Operator::current_tap, t, 0))
            w(t, c) = plain(t, c) * w_.at("w_conv", c * taps + taps - 1);
          if (!(e.at(Site::conv, Operator::identity, t, 0) && e.edit.drop_activation))
            w(t, c) = reference::silu(w(t, c));
        }
    }
    reference::l2_normalise(w, d_, 1e-6);
    return w;
  }

  Rows decay_sums(View<const double> x, const RangeEdit& e) const {
    Rows sums(x.rows, heads_);
    if (!s_.value("forget_gate", false)) return sums;
    const Rows logits = w_.project("forget", x);
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < heads_; ++h) {
        double log_f = reference::log_sigmoid(logits(t, h) + w_.at("forget_bias", h));
        if (e.at(Site::decay, Operator::one, t, h)) log_f = 0;
        if (e.at(Site::decay, Operator::zero, t, h)) log_f = -104;
        if (e.at(Site::decay, Operator::constant, t, h)) log_f = e.edit.value;
        if (hole(t)) log_f = 0;
        sums(t, h) = log_f + (t > 0 ? sums(t - 1, h) : 0);
      }
    return sums;
  }

  Json s_;
  reference::Weights w_;
  Index heads_, kv_heads_, d_, dv_;
  Index hole_begin_ = 0, hole_end_ = 0;
};

const std::vector<Json> kForms = {
    Json{{"num_heads", 2}, {"head_dim", 24}}, kSettings,
    Json{{"num_heads", 3},
         {"num_kv_heads", 1},
         {"head_dim", 40},
         {"value_head_dim", 24},
         {"w_rank", 0},
         {"conv", 0}},
    Json{{"num_heads", 2}, {"head_dim", 9}, {"w_rank", 5}, {"conv", 4}, {"scale", 0.7}}};

// The query carried back meets the same keys as the keys carried forward (3.3e-16 on 37 tokens in the
// reference; here 150 factors and a softmax).
TEST(PathAttention, CarryingQueriesBackIsRewritingKeys) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& settings : kForms) {
    SCOPED_TRACE(settings.dump());
    const std::vector<double> rewritten = PathDefinition(settings, values_of(settings)).run(input, {});
    EXPECT_LE(relative_error(layer(settings).twin(input), rewritten), 1e-13);
  }
}

TEST(PathAttention, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 3);
  for (const Json& settings : kForms) {
    SCOPED_TRACE(settings.dump());
    const OneKind kind = layer(settings);
    expect_near(kind.run(input), kind.twin(input), 8, kLength);
  }
}

TEST(PathAttention, AnySplit) {
  const KindInput input = random_input(kRows, kWidth, 4);
  for (const Json& settings : kForms) {
    const OneKind kind = layer(settings);
    const std::vector<float> whole = kind.run(input);
    for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {7, 64, 1}, {63, 2}})
      EXPECT_TRUE(same_bits(kind.run(input, {.split = split}), whole)) << split[0];
  }
}

// beta = 0: every factor is the identity and what is left is attention without positions.
TEST(PathAttention, WithoutStrengthIsSoftmaxAttention) {
  const Json settings = {
      {"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 24}, {"qk_norm", {{"eps", 1e-5}}}};
  OneKind::Values values = values_of(settings);
  std::fill(values.at("beta").begin(), values.at("beta").end(), 0.0f);
  std::fill(values.at("beta_bias").begin(), values.at("beta_bias").end(), -80.0f);
  const KindInput input = random_input(kRows, kWidth, 5);
  const std::vector<double> path = OneKind("path_attention", settings, surroundings(), values).twin(input);
  for (const char* name : {"w", "w_down", "w_conv", "beta", "beta_bias"}) values.erase(name);
  const OneKind plain("softmax_attention", settings, surroundings(), values);
  EXPECT_LE(relative_error(path, plain.twin(input)), 1e-14);
  EXPECT_GE(relative_error(layer(settings).twin(input), plain.twin(input)), 0.05);
}

// beta = 2 and one direction for all tokens: reflections, of which two are none. Every second key is met as
// it is, the others mirrored.
TEST(PathAttention, EqualReflectionsCancelInPairs) {
  const Json settings = {{"num_heads", 1}, {"head_dim", 8}, {"w_rank", 0}, {"conv", 0}};
  OneKind::Values values = values_of(settings);
  std::fill(values.at("beta").begin(), values.at("beta").end(), 0.0f);
  std::fill(values.at("beta_bias").begin(), values.at("beta_bias").end(), 80.0f);
  KindInput input = random_input(90, kWidth, 6);
  for (Index t = 0; t < input.rows; ++t) input.inputs[0][static_cast<std::size_t>(t * kWidth)] = 1;
  std::vector<float>& w = values.at("w");  // reads the constant first column only
  std::fill(w.begin(), w.end(), 0.0f);
  w[3 * kWidth] = 1000;  // so that the norm's eps is nothing: w = e_3
  const std::vector<double> y = OneKind("path_attention", settings, surroundings(), values).twin(input);

  const reference::Weights weights(
      parameters_of(Registry::builtin()
                        .find("path_attention")
                        .tensors(*std::make_unique<Config>("tested", settings, surroundings())),
                    values));
  const std::vector<double> wide = widen(input.inputs[0]);
  const View<const double> x(wide.data(), input.rows, kWidth);
  const reference::Rows q = weights.project("q", x), k = weights.project("k", x), v = weights.project("v", x);
  reference::Rows o(input.rows, 8);
  for (Index i = 0; i < input.rows; ++i) {
    double mass = 0;
    std::vector<double> p;
    for (Index j = 0; j <= i; ++j) {
      double dot = 0;
      for (Index c = 0; c < 8; ++c) dot += (c == 3 && (i - j) % 2 == 1 ? -1 : 1) * q(i, c) * k(j, c);
      p.push_back(std::exp(dot / std::sqrt(8.0)));
      mass += p.back();
    }
    for (Index j = 0; j <= i; ++j)
      for (Index c = 0; c < 8; ++c) o(i, c) += p[static_cast<std::size_t>(j)] / mass * v(j, c);
  }
  EXPECT_LE(relative_error(y, weights.project("o", o.view()).data), 1e-10);
}

// log f = 0 adds nothing to a logit, to the last bit.
TEST(PathAttention, OpenForgetGateIsNone) {
  Json settings = {{"num_heads", 2}, {"head_dim", 24}, {"forget_gate", true}};
  OneKind::Values values = values_of(settings);
  std::fill(values.at("forget").begin(), values.at("forget").end(), 0.0f);
  std::fill(values.at("forget_bias").begin(), values.at("forget_bias").end(), 60.0f);
  const KindInput input = random_input(kRows, kWidth, 7);
  const std::vector<float> open = OneKind("path_attention", settings, surroundings(), values).run(input);
  settings.erase("forget_gate");
  values.erase("forget");
  values.erase("forget_bias");
  EXPECT_TRUE(same_bits(OneKind("path_attention", settings, surroundings(), values).run(input), open));
}

// Every site and operator against its definition, over rows that begin and end inside blocks, on all heads
// and on the second group's; and each changes something.
TEST(PathAttention, EditsAsDefined) {
  const OneKind kind = layer(kSettings);
  const PathDefinition definition(kSettings, values_of(kSettings));
  const KindInput input = random_input(kRows, kWidth, 8);
  const std::vector<float> plain = kind.run(input);
  for (const SiteSpec& site : kind.layer().sites())
    for (const Operator op : site.operators)
      for (const std::vector<Index>& heads : std::vector<std::vector<Index>>{{}, {2, 3}}) {
        if (site.site == Site::conv && !heads.empty()) continue;  // the whole convolution
        for (const RangeEdit& range : range_edits(site, op, 50, 140, heads)) {
          SCOPED_TRACE(describe(range.edit) + (heads.empty() ? "" : " heads 2 and 3"));
          const std::vector<float> edited = run_edited(kind, input, range);
          expect_near(edited, definition.run(input, range), 8, kLength);
          EXPECT_FALSE(same_bits(edited, plain));
        }
      }
  Edit half = inner_edit(Site::position, Operator::none, {2});
  EXPECT_THROW(kind.run(input, {.edits = {half}}), Error);
}

// Skipped tokens turn nothing and are not met, also where they fill whole blocks.
TEST(PathAttention, SkippedTokensAreNotThere) {
  Json settings = kSettings;
  settings["conv"] = 0;
  const OneKind kind = layer(settings);
  PathDefinition definition(settings, values_of(settings));
  const KindInput input = random_input(230, kWidth, 9);
  for (const auto& [begin, end] :
       std::vector<std::pair<Index, Index>>{{10, 20}, {50, 200}, {60, 128}, {0, 70}}) {
    SCOPED_TRACE(begin);
    definition.skip(begin, end);
    const std::vector<float> y = run_pieces(kind, input, {{0, begin}, {begin, end, {}, true}, {end, 230}});
    expect_near(y, definition.run(input, {}), 8, kLength + 80);
  }
}

TEST(PathAttention, RefusesWhatItDoesNotKnow) {
  for (const Json& more : {Json{{"num_kv_heads", 3}}, Json{{"rope", {{"theta", 10000}}}}, Json{{"window", 5}},
                           Json{{"conv", -1}}}) {
    Json settings = kSettings;
    settings.update(more);
    EXPECT_THROW(layer(settings), Error) << more;
  }
}

}  // namespace
}  // namespace plait
