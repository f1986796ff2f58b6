#include <gtest/gtest.h>

#include "layers/reference/nats_l.h"
#include "tests/identities/attention_rows.h"
#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;
using reference::Rows;

constexpr Index kRows = 150, kWidth = 40;
const Json kSettings = {
    {"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}, {"num_attention_heads", 4}, {"block", 16}};

// Projections, products with keys and the state, the sum over tokens and the output projection; norms divide
// by what may be a small root, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 80;

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  s.grids = {32, 64, 128};
  return s;
}

OneKind::Values values_of(const Json& settings) {
  return OneKind::random_values("nats_l", settings, surroundings(), 1);
}
OneKind layer(const Json& settings, const OneKind::Values& values) {
  return OneKind("nats_l", settings, surroundings(), values);
}
OneKind layer(const Json& settings) { return layer(settings, values_of(settings)); }

// The router's rows read one column of the input only, which the test sets.
void route_by_column(OneKind::Values& values, Index heads) {
  std::vector<float>& route = values.at("route");
  std::fill(route.begin(), route.end(), 0.0f);
  for (Index h = 0; h < heads; ++h) route[static_cast<std::size_t>(2 * h * kWidth + h)] = 1;
}

// What the layer computes when head h gives block b to attention where attends[b][h], from other parts: a row
// reads the delta rule (whose own tests are elsewhere) over the whole past with the tokens of earlier blocks
// that attention has left unwritten, and a softmax over the pairs that are left.
class NatsDefinition {
 public:
  NatsDefinition(const Json& settings, const OneKind::Values& values)
      : config_("tested", settings, surroundings()),
        s_(read_nats_l(config_)),
        w_(parameters_of(nats_l_tensors(s_), values)) {}

  const NatsLSettings& settings() const { return s_; }

  // Tokens of [begin, end) do not exist; their rows are 0.
  void skip(Index begin, Index end) { hole_begin_ = begin, hole_end_ = end; }

  std::vector<double> run(const KindInput& input, const std::vector<std::vector<bool>>& attends,
                          const RangeEdit& e = {}) const {
    const std::vector<double> wide = widen(input.inputs[0]);
    const View<const double> x(wide.data(), input.rows, kWidth);
    const Rows q = convolved("q", x), k = convolved("k", x), v = convolved("v", x);
    Rows o = delta(x, q, k, v, attends, e);
    Rows attention = softmax(q, k, v, attends, e);
    const Index width = s_.attention_value(), heads = s_.num_attention_heads;
    reference::rms_normalise(o, width, s_.norm_eps, w_["norm"]);
    reference::rms_normalise(attention, width, s_.norm_eps, w_["attention_norm"]);
    const Rows logits = w_.project("mix", q.view()), z = w_.project("gate", x);
    for (Index t = 0; t < o.rows; ++t)
      for (Index h = 0; h < heads; ++h) {
        const double first = std::exp(logits(t, 2 * h)), second = std::exp(logits(t, 2 * h + 1));
        for (Index c = h * width; c < (h + 1) * width; ++c) {
          o(t, c) = (first * o(t, c) + second * attention(t, c)) / (first + second);
          if (e.at(Site::gate, Operator::mean, t, h))
            o(t, c) *= e.edit.values[static_cast<std::size_t>(c)];
          else if (!e.at(Site::gate, Operator::one, t, h))
            o(t, c) *= reference::silu(z(t, c));
        }
        edit_head(e, t, h, heads, o.row(t) + h * width, width);
        if (e.at(Site::head, Operator::scale, t, h))
          for (Index c = h * width; c < (h + 1) * width; ++c) o(t, c) *= e.edit.value;
      }
    for (Index t = hole_begin_; t < hole_end_; ++t) std::fill_n(o.row(t), o.cols, 0.0);
    return w_.project("o", o.view()).data;
  }

 private:
  bool hole(Index t) const { return t >= hole_begin_ && t < hole_end_; }

  Rows convolved(const std::string& name, View<const double> x) const {
    Rows y = w_.project(name, x);
    if (s_.conv > 0) y = w_.convolve(name + "_conv", y);
    reference::map(y, reference::silu);
    return y;
  }

  // One run of the delta rule per block, whose rows alone are kept.
  Rows delta(View<const double> x, Rows q, Rows k, const Rows& v,
             const std::vector<std::vector<bool>>& attends, const RangeEdit& e) const {
    reference::l2_normalise(q, s_.head_dim, 1e-6);
    reference::l2_normalise(k, s_.head_dim, 1e-6);
    Rows g = w_.project("a", x), beta = w_.project("beta", x), o(x.rows, v.cols);
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < s_.num_heads; ++h) {
        g(t, h) = -std::exp(w_.at("a_log", h)) * reference::softplus(g(t, h) + w_.at("dt_bias", h));
        beta(t, h) = (s_.negative_eigenvalues ? 2 : 1) * reference::sigmoid(beta(t, h));
        if (e.at(Site::decay, Operator::one, t, h)) g(t, h) = 0;
        if (e.at(Site::write, Operator::zero, t, h)) beta(t, h) = 0;
        if (hole(t)) g(t, h) = beta(t, h) = 0;
      }
    const double scale = 1 / std::sqrt(static_cast<double>(s_.head_dim));
    const reference::Heads heads{s_.num_heads, s_.num_heads,      s_.num_heads,
                                 s_.head_dim,  s_.value_head_dim, scale};
    for (Index first = 0; first < x.rows; first += s_.block) {
      Rows decays = g, strengths = beta;
      for (Index t = 0; t < first; ++t)
        for (Index h = 0; h < s_.num_heads; ++h)
          if (attends[static_cast<std::size_t>(t / s_.block)][static_cast<std::size_t>(h)]) {
            strengths(t, h) = 0;
            if (!s_.decay_for_non_gdn_blocks) decays(t, h) = 0;
          }
      const Rows all = reference::delta_rule(heads, q, k, v, &decays, strengths);
      for (Index t = first; t < std::min(first + s_.block, x.rows); ++t)
        for (Index h = 0; h < s_.num_heads; ++h)
          for (Index c = h * s_.value_head_dim; c < (h + 1) * s_.value_head_dim; ++c)
            o(t, c) = e.at(Site::state, Operator::no_read, t, h) ? 0 : all(t, c);
    }
    return o;
  }

  Rows softmax(Rows q, Rows k, const Rows& v, const std::vector<std::vector<bool>>& attends,
               const RangeEdit& e) const {
    const Index key = s_.attention_key(), value = s_.attention_value();
    if (s_.qk_norm) {
      reference::rms_normalise(q, key, s_.norm_eps, w_["q_norm"]);
      reference::rms_normalise(k, key, s_.norm_eps, w_["k_norm"]);
    }
    Rows o(q.rows, v.cols);
    for (Index t = 0; t < q.rows; ++t)
      for (Index h = 0; h < s_.num_attention_heads; ++h) {
        double mass = 0;
        for (Index j = 0; j <= t; ++j) {
          const bool kept =
              attends[static_cast<std::size_t>(j / s_.block)][static_cast<std::size_t>(h / s_.group())];
          const bool covered = j >= e.edit.key_begin && j < e.edit.key_end;
          if (hole(j) || (j / s_.block != t / s_.block && !kept) ||
              (covered && e.at(Site::score, Operator::knockout, t, h)))
            continue;
          const double weight = std::exp(
              std::inner_product(q.row(t) + h * key, q.row(t) + (h + 1) * key, k.row(j) + h * key, 0.0) /
              std::sqrt(static_cast<double>(key)));
          mass += weight;
          for (Index c = h * value; c < (h + 1) * value; ++c) o(t, c) += weight * v(j, c);
        }
        for (Index c = h * value; mass > 0 && c < (h + 1) * value; ++c) o(t, c) /= mass;
      }
    return o;
  }

  Config config_;
  NatsLSettings s_;
  reference::Weights w_;
  Index hole_begin_ = 0, hole_end_ = 0;
};

// Blocks in the pattern of the bits of `pattern`, other ones for each head; the last, incomplete one counts
// as well, though nobody may ask for it.
std::vector<std::vector<bool>> pattern_of(const NatsLSettings& s, unsigned pattern) {
  std::vector<std::vector<bool>> attends;
  for (Index b = 0; b * s.block < kRows; ++b) {
    std::vector<bool>& block = attends.emplace_back();
    for (Index h = 0; h < s.num_heads; ++h) block.push_back((pattern >> ((b + 3 * h) % 10) & 1) != 0);
  }
  return attends;
}

// Input whose first columns make the router choose that pattern, weights that read it.
KindInput routed_input(const NatsLSettings& s, const std::vector<std::vector<bool>>& attends,
                       OneKind::Values& values, std::uint64_t seed) {
  route_by_column(values, s.num_heads);
  KindInput input = random_input(kRows, kWidth, seed);
  for (Index t = 0; t < kRows; ++t)
    for (Index h = 0; h < s.num_heads; ++h)
      input.inputs[0][static_cast<std::size_t>(t * kWidth + h)] =
          attends[static_cast<std::size_t>(t / s.block)][static_cast<std::size_t>(h)] ? 0.5f : -0.5f;
  return input;
}

const std::vector<Json> kForms = {
    kSettings, Json{{"num_heads", 2}, {"head_dim", 24}},  // blocks of 64, two attention heads each
    Json{{"num_heads", 3},
         {"head_dim", 18},
         {"value_head_dim", 27},
         {"num_attention_heads", 9},
         {"block", 24},
         {"conv", 0},
         {"qk_norm", false},
         {"negative_eigenvalues", true},
         {"decay_for_non_gdn_blocks", false}}};

TEST(NatsL, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& settings : kForms) {
    SCOPED_TRACE(settings.dump());
    const OneKind kind = layer(settings);
    expect_near(kind.run(input), kind.twin(input), 16, kLength);
  }
}

TEST(NatsL, AnySplit) {
  const KindInput input = random_input(kRows, kWidth, 3);
  for (const Json& settings : kForms) {
    const OneKind kind = layer(settings);
    const std::vector<float> whole = kind.run(input);
    for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {7, 64, 1}, {15, 2}})
      EXPECT_TRUE(same_bits(kind.run(input, {.split = split}), whole)) << settings << split[0];
  }
}

// All blocks to the delta rule: gated delta rule and a softmax inside the block. All to attention: full
// softmax and a delta rule that starts anew in each block. Mixed: attention's blocks only decay the state.
TEST(NatsL, RoutesAsTold) {
  for (const Json& settings : kForms)
    for (const unsigned pattern : {0u, 0x3ffu, 0x155u, 0x2c7u}) {
      SCOPED_TRACE(settings.dump() + " " + std::to_string(pattern));
      OneKind::Values values = values_of(settings);
      const NatsDefinition definition(settings, values);
      const auto attends = pattern_of(definition.settings(), pattern);
      const KindInput input = routed_input(definition.settings(), attends, values, 4);
      const std::vector<double> expected = NatsDefinition(settings, values).run(input, attends);
      const OneKind kind = layer(settings, values);
      EXPECT_LE(relative_error(kind.twin(input), expected), 1e-12);
      expect_near(kind.run(input), expected, 16, kLength);
    }
}

// A route says nothing before its block is complete.
TEST(NatsL, RoutesActBehindTheirBlock) {
  OneKind::Values values = values_of(kSettings);
  const NatsDefinition definition(kSettings, values);
  std::vector<std::vector<float>> outputs;
  for (const unsigned pattern : {0u, 0x3ffu, 0x155u}) {
    const auto attends = pattern_of(definition.settings(), pattern);
    KindInput input = routed_input(definition.settings(), attends, values, 4);
    for (const char* name : {"q", "k", "v", "a", "beta", "gate"}) {  // only the router sees the columns
      std::vector<float>& w = values.at(name);
      for (std::size_t r = 0; r < w.size(); r += kWidth)
        std::fill_n(w.begin() + static_cast<long>(r), 2, 0.0f);
    }
    outputs.push_back(layer(kSettings, values).run(input));
    EXPECT_TRUE(std::equal(outputs[0].begin(), outputs[0].begin() + 16 * kWidth, outputs.back().begin()));
    for (std::size_t i = 0; i + 1 < outputs.size(); ++i) EXPECT_FALSE(same_bits(outputs[i], outputs.back()));
  }
}

// A tie goes to the lower index, attention.
TEST(NatsL, TiesGoToAttention) {
  OneKind::Values values = values_of(kSettings);
  std::fill(values.at("route").begin(), values.at("route").end(), 0.0f);
  const NatsDefinition definition(kSettings, values);
  const KindInput input = random_input(kRows, kWidth, 5);
  const auto all = pattern_of(definition.settings(), 0x3ff);
  EXPECT_LE(relative_error(layer(kSettings, values).twin(input), definition.run(input, all)), 1e-12);
  expect_near(layer(kSettings, values).run(input), definition.run(input, all), 16, kLength);
}

TEST(NatsL, EditsAsDefined) {
  OneKind::Values values = values_of(kSettings);
  const auto attends = pattern_of(NatsDefinition(kSettings, values).settings(), 0x2c7);
  const KindInput input = routed_input(NatsDefinition(kSettings, values).settings(), attends, values, 6);
  const OneKind kind = layer(kSettings, values);
  const NatsDefinition definition(kSettings, values);
  const std::vector<float> plain = kind.run(input);
  const auto defined = [](Site site, Operator op) {
    return site == Site::head || site == Site::gate || (site == Site::decay && op == Operator::one) ||
           (site == Site::write && op == Operator::zero) ||
           (site == Site::state && op == Operator::no_read) ||
           (site == Site::score && op == Operator::knockout);
  };
  for (const SiteSpec& site : kind.layer().sites())
    for (const Operator op : site.operators)
      for (const std::vector<Index>& heads : std::vector<std::vector<Index>>{{}, {1}}) {
        if (site.site == Site::conv && !heads.empty()) continue;  // the whole convolution
        for (const RangeEdit& range : range_edits(site, op, 20, 110, heads)) {
          SCOPED_TRACE(describe(range.edit) + (heads.empty() ? "" : " head 1"));
          const std::vector<float> edited = run_edited(kind, input, range);
          EXPECT_FALSE(same_bits(edited, plain));
          if (defined(site.site, op)) expect_near(edited, definition.run(input, attends, range), 16, kLength);
        }
      }
}

// A block that lost tokens, at its end or at its start, is routed by those it has.
TEST(NatsL, SkippedTokensHaveNoSay) {
  Json settings = kSettings;
  settings["conv"] = 0;
  for (const unsigned pattern : {0x2c7u, 0x138u}) {  // blocks 1 and 4 one way and the other
    OneKind::Values values = values_of(settings);
    const auto attends = pattern_of(NatsDefinition(settings, values).settings(), pattern);
    const KindInput input = routed_input(NatsDefinition(settings, values).settings(), attends, values, 7);
    const OneKind kind = layer(settings, values);
    NatsDefinition definition(settings, values);
    definition.skip(20, 75);
    expect_near(run_pieces(kind, input, {{0, 20}, {20, 75, {}, true}, {75, kRows}}),
                definition.run(input, attends), 16, kLength);
  }
}

TEST(NatsL, RefusesWhatItDoesNotKnow) {
  for (const Json& more :
       {Json{{"num_attention_heads", 3}}, Json{{"head_dim", 25}}, Json{{"value_head_dim", 41}},
        Json{{"block", 0}}, Json{{"rope", {{"theta", 10000}}}}}) {
    Json settings = kSettings;
    settings.update(more);
    EXPECT_THROW(layer(settings), Error) << more;
  }
}

}  // namespace
}  // namespace plait
