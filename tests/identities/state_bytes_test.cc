// Bytes of every kind's state, against the formulas of the literature with what plait adds to them: value
// columns of a recurrent matrix in panels of 32, one chunk of open rows, a token's rows in whole pages. The
// formulas are written in the papers' symbols and know nothing of the layers' fields.
#include <gtest/gtest.h>

#include <bit>
#include <functional>
#include <set>
#include <vector>

#include "tests/one_kind.h"

namespace plait {
namespace {

using testing::KindInput;
using testing::OneKind;
using testing::random_input;

constexpr Index kWidth = 64;  // d_m
constexpr Index kChunk = 32;  // C, the card's grid
constexpr Index kPage = 64;   // tokens
constexpr Index kFloat = 4, kDouble = 8;

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }
// Columns of a matrix in panels, and tokens of a chunk that lies in columns.
Index panels(Index n) { return 32 * ceil_div(n, 32); }

// Bytes after T tokens.
using Bytes = std::function<Index(Index T)>;

Bytes operator+(const Bytes& a, const Bytes& b) {
  return [=](Index T) { return a(T) + b(T); };
}

// -- What states are made of.

Bytes floats(Index n) {
  return [=](Index) { return kFloat * n; };
}

// A row of `bytes` of every token.
Bytes cache(Index bytes) {
  return [=](Index T) { return kPage * ceil_div(T, kPage) * bytes; };
}

// A row of `bytes` of what the next token sees, itself included in the `window`, and of the first `sinks`:
// the pages that hold one of them.
Bytes window(Index window, Index sinks, Index page, Index bytes) {
  return [=](Index T) {
    Index pages = 0;
    for (Index first = 0; first < T; first += page)
      pages += first + page > T - window + 1 || first < sinks ? 1 : 0;
    return pages * page * bytes;
  };
}

// The last rows of a short memory: a convolution's taps, sums one token back.
Bytes taps(Index count, Index bytes) {
  return window(count, 0, static_cast<Index>(std::bit_ceil(static_cast<std::size_t>(count))), bytes);
}

Bytes convolution(Index taps_count, Index channels) { return taps(taps_count, kFloat * channels); }

// -- Constant states. H heads of states, d their rows, dv their columns.

// S [d, dv] of a decayed sum or a delta rule, and a chunk's keys and values; Hk key heads, `gates` numbers a
// token and head.
Bytes recurrence(Index H, Index d, Index dv, Index Hk, Index gates = 0, Index C = kChunk) {
  return floats(H * d * panels(dv) + Hk * d * panels(C) + H * dv * C + H * gates * panels(C));
}

// S [D, dv] and Z [D] as one more column; `root` channels beside the D features of a chunk's keys.
Bytes features(Index H, Index D, Index dv, Index root = 0) {
  return recurrence(H, D, dv + 1, H) + floats(H * root * panels(kChunk));
}

// A decay per channel: keys and decays lie in rows.
Bytes channelwise(Index H, Index d, Index dv) {
  return floats(H * d * panels(dv) + kChunk * (H * d + H * dv + H * d));
}

// Curvature-conditioned query: d^2, + 1 where counted, + d where centred; a chunk's keys, weights and decays.
Bytes curvature(Index H, Index d, bool counted, bool centred, Index Hk, Index gates) {
  return floats(H * (d * panels(d) + (counted ? 1 : 0) + (centred ? d : 0)) +
                panels(kChunk) * (Hk * d + H * (1 + gates)));
}

// d^2 + d dv: the keys' Gram matrix beside the memory.
Bytes mesa(Index H, Index d, Index dv) {
  return floats(H * (d * panels(d) + d * panels(dv)) + H * d * panels(kChunk) + H * dv * kChunk +
                2 * H * panels(kChunk));
}

// The published count, 2 (f^2 + f), is W and b and their gradients' sums; plait has a mini-batch's keys,
// errors and rates in place of the sums.
Bytes inner_model(Index H, Index f, Index B) {
  return floats(H * (f * panels(f) + f) + H * f * panels(B) + B * H * f + H * panels(B));
}

// D (dv + 1) normalised, D dv otherwise, without panels; G state heads, Hkv heads of keys and values, `key`
// numbers of a key that the state and `near` numbers that its own chunk reads.
Bytes power(Index G, Index D, Index dv, bool normalised, Index Hkv, Index key, Index near, Index gates,
            Index C) {
  return floats(G * D * (dv + (normalised ? 1 : 0)) + Hkv * (key + near) * panels(C) +
                C * (Hkv * dv + gates));
}

// Monomials of degree p in d variables.
Index monomials(Index d, Index p) {
  Index n = 1;
  for (Index i = 1; i <= p; ++i) n = n * (d + i - 1) / i;
  return n;
}
Index up_to_second_degree(Index d) { return (d + 1) * (d + 2) / 2; }

// Keys and values.
Index kv(Index Hkv, Index d, Index dv, Index element = kFloat) { return element * Hkv * (d + dv); }

struct Case {
  const char* kind;
  Json settings;
  Bytes bytes;
};

Json softmax(Index H, Index d, Json more = Json::object()) {
  Json settings = {{"num_heads", H}, {"head_dim", d}};
  settings.update(more);
  return settings;
}

std::vector<Case> attention_cases() {
  const Json grouped = {{"num_kv_heads", 2}, {"value_head_dim", 20}};
  const auto score = [](std::vector<std::string> names, Json more = Json::object()) {
    more["score"] = std::move(names);
    return more;
  };
  const char* const kind = "softmax_attention";
  std::vector<Case> cases = {
      {kind, softmax(4, 12, grouped), cache(kv(2, 12, 20))},
      {kind, softmax(4, 12, {{"num_kv_heads", 2}, {"value_head_dim", 20}, {"cache", "bf16"}}),
       cache(kv(2, 12, 20, 2))},
      {kind, softmax(4, 12, {{"cache", "f16"}}), cache(kv(4, 12, 12, 2))},
      {kind, softmax(2, 16, {{"window", 37}, {"sinks", 3}}),
       window(37, 3, kPage, kFloat * 2 * 16) + window(37, 3, kPage, kFloat * 2 * 16)},
      // Short windows have short pages where a token's channels lie together.
      {kind, softmax(2, 16, {{"window", 9}}),
       window(9, 0, kPage, kFloat * 32) + window(9, 0, 16, kFloat * 32)},
      {kind, softmax(2, 16, {{"shift_linear", true}, {"value_head_dim", 20}}),
       cache(kv(2, 16, 20)) + taps(2, kFloat * 2 * 16) + taps(2, kFloat * 2 * 20)},
      // FoX and LASER: one f64 a query head, resp. value head, beside the cache.
      {kind, softmax(4, 16, score({"scaled_dot", "forgetting_attention"}, {{"num_kv_heads", 2}})),
       cache(kv(2, 16, 16) + kDouble * 4)},
      {kind, softmax(4, 16, {{"readout", "laser_attention"}, {"num_kv_heads", 2}}),
       cache(kv(2, 16, 16) + kDouble * 4)},
      // A mean's running sum and count.
      {kind,
       softmax(2, 16,
               score({"scaled_dot", "focal_attention"}, {{"focal_attention", {{"mode", "prefix_mean"}}}})),
       cache(kv(2, 16, 16)) + taps(2, kDouble * 2)},
      // Bilinear MLR: r_l columns for each of the 2^(l-1) slices of level l; BTT: d_m for every head.
      {kind, softmax(2, 12, score({"bilinear_mlr"}, {{"bilinear_mlr", {{"ranks", {4, 5, 0, 3}}}}})),
       cache(kv(2, 4 + 5 * 2 + 3 * 8, 12))},
      {kind, softmax(2, 8, score({"bilinear_btt"}, {{"bilinear_btt", {{"rank", 2}}}})),
       cache(kv(2, kWidth, 8))},
      // MLR attention could do with sum r_l / 2^(l-1) numbers of a key: a level only reads the newest block.
      // plait keeps keys whole, because a rollback or an edit may ask for an earlier block.
      {kind,
       softmax(2, 12, score({"mlr_attention"}, {{"mlr_attention", {{"block_size", 64}, {"ranks", {8, 4}}}}})),
       cache(kv(2, 12, 12))},
      {"latent_attention",
       {{"num_heads", 4}, {"kv_lora_rank", 36}, {"qk_nope_head_dim", 16}, {"qk_rope_head_dim", 10}},
       cache(kFloat * (36 + 10))},
      {"latent_attention",
       {{"num_heads", 4},
        {"kv_lora_rank", 36},
        {"qk_nope_head_dim", 16},
        {"qk_rope_head_dim", 10},
        {"cache", "f16"}},
       cache(2 * (36 + 10))},
      // m, l and the pooled values in f64, after this token and the one before.
      {"global_pathway", {{"dim", 24}}, taps(2, kDouble * (24 + 2))},
      // The side column is a sum of log decays a channel and query head.
      {"wall_attention",
       {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}},
       cache(kv(2, 24, 40) + kDouble * 4 * 24)},
      // Beside keys and values the directions w and, of their triangular systems, two rows: d + 64 numbers.
      {"path_attention",
       {{"num_heads", 4},
        {"num_kv_heads", 2},
        {"head_dim", 24},
        {"value_head_dim", 40},
        {"forget_gate", true}},
       cache(kv(2, 24, 40) + kFloat * 2 * (24 + 24 + 64) + kDouble * 4) + convolution(3, 2 * 24)},
      {"path_attention",
       {{"num_heads", 2}, {"head_dim", 24}, {"conv", 0}},
       cache(kv(2, 24, 24) + kFloat * 2 * (24 + 24 + 64))},
      // Gated delta net and, whatever the routes, a cache; route differences are summed in f64.
      {"nats_l",
       {{"num_heads", 2},
        {"head_dim", 24},
        {"value_head_dim", 40},
        {"num_attention_heads", 4},
        {"block", 16}},
       recurrence(2, 24, 40, 2, 1, 16) + floats(16 * 2) + cache(kv(2, 24, 40) + kDouble * 2) +
           convolution(4, 2 * (24 + 24 + 40))},
  };
  return cases;
}

std::vector<Case> power_cases() {
  const Json grouped = {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 7}, {"value_head_dim", 20}};
  const auto with = [&](Json more) {
    Json settings = grouped;
    settings.update(more);
    return settings;
  };
  const char* const polynomial = "polynomial_attention";
  std::vector<Case> cases;
  for (const Index p : {1, 2, 3, 4}) {
    cases.push_back(
        {polynomial, with({{"degree", p}}), power(2, monomials(7, p), 20, false, 2, 7, 0, 0, kChunk)});
    if (p % 2 == 0)
      cases.push_back({polynomial, with({{"degree", p}, {"denominator", "sum"}}),
                       power(2, monomials(7, p), 20, true, 2, 7, 0, 0, kChunk)});
  }
  // Gates belong to query heads, and so do the states they decay.
  cases.push_back({polynomial, with({{"degree", 2}, {"decay", "scalar"}, {"denominator", "one_plus_sum"}}),
                   power(4, monomials(7, 2), 20, true, 2, 7, 0, 4, kChunk)});
  cases.push_back({polynomial, with({{"degree", 2}, {"decay", "scalar"}, {"evaluation", "quadratic"}}),
                   cache(kv(2, 7, 20) + kDouble * 4)});
  for (const Index p : {2, 4})
    cases.push_back({"power_retention", with({{"degree", p}, {"switch_over_seq_len", 40}}),
                     power(2, monomials(7, p), 20, true, 2, 7, 0, 2, 40)});
  // r (r + 1) / 2 features of a sketch, whatever d is; a mixed layer's own block reads the keys themselves.
  const char* const sketch = "polysketch_attention";
  cases.push_back({sketch, with({{"r", 9}}), power(2, monomials(9, 2), 20, true, 2, 9, 0, 0, kChunk)});
  cases.push_back({sketch, with({{"r", 9}, {"sketch", "learned"}}),
                   power(2, monomials(9, 2), 20, true, 2, 9, 0, 0, kChunk)});
  cases.push_back({sketch, with({{"r", 9}, {"mixed", true}, {"block", 20}}),
                   power(2, monomials(9, 2), 20, true, 2, 9, 7, 0, 20)});
  cases.push_back(
      {sketch, with({{"sketch", "none"}}), power(2, monomials(7, 4), 20, true, 2, 7, 0, 0, kChunk)});
  return cases;
}

std::vector<Case> recurrent_cases() {
  const Json heads = {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}};
  const Json grouped = {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}};
  const auto with = [](Json settings, Json more) {
    settings.update(more);
    return settings;
  };
  const char* const linear = "linear_attention";
  return {
      {linear, grouped, features(2, 24, 40)},
      {linear, with(grouped, {{"normalise", false}, {"feature_map", "identity"}}), recurrence(2, 24, 40, 2)},
      {linear, with(grouped, {{"feature_map", "taylor2"}}), features(2, up_to_second_degree(24), 40)},
      // M (dv + 1)
      {linear, with(grouped, {{"feature_map", "positive_random_features"}, {"M", 50}}), features(2, 50, 40)},
      {linear, with(grouped, {{"query", {{"lambda", {0.5}}}}}),
       features(2, 24, 40) + curvature(2, 24, true, true, 2, 0)},
      {linear, with(grouped, {{"query", {{"lambda", {0.5}}, {"center", false}, {"normalise", false}}}}),
       features(2, 24, 40) + curvature(2, 24, false, false, 2, 0)},
      {"cosformer", with(grouped, {{"M", 200}}), features(2, 2 * 24, 40)},
      {"cosformer", with(grouped, {{"M", 200}, {"query", {{"lambda", {0.5}}, {"center", false}}}}),
       features(2, 2 * 24, 40) + curvature(2, 2 * 24, true, false, 2, 0)},
      {"based", with(grouped, {{"head_dim", 16}}), features(2, 153, 40)},
      {"based", with(grouped, {{"head_dim", 6}, {"query", {{"lambda", {0.5}}}}}),
       features(2, up_to_second_degree(6), 40) + curvature(2, up_to_second_degree(6), true, true, 2, 0)},
      // Inside a chunk weights come from the d channels themselves.
      {"rebased", with(grouped, {{"head_dim", 16}}), features(2, 136, 40, 16)},
      // A conditioned query has no root.
      {"rebased", with(grouped, {{"head_dim", 6}, {"query", {{"lambda", {0.5}}}}}),
       features(2, monomials(6, 2), 40) + curvature(2, monomials(6, 2), true, true, 2, 0)},
      {"gated_linear_attention", grouped, channelwise(2, 24, 40)},
      {"gated_linear_attention", with(heads, {{"conv", 4}}),
       channelwise(2, 24, 40) + convolution(4, 2 * (24 + 24 + 40))},
      {"gated_linear_attention", with(heads, {{"query", {{"lambda", {0.5}}}}}),
       channelwise(2, 24, 40) + curvature(2, 24, false, false, 2, 24)},
      {"delta_net", heads, recurrence(2, 24, 40, 2) + convolution(4, 2 * (24 + 24 + 40))},
      {"delta_net", with(heads, {{"conv", 0}, {"query", {{"lambda", {0.5}}}}}),
       recurrence(2, 24, 40, 2) + curvature(2, 24, true, true, 2, 0)},
      {"gated_delta_net", heads, recurrence(2, 24, 40, 2, 1) + convolution(4, 2 * (24 + 24 + 40))},
      {"gated_delta_net", with(heads, {{"num_value_heads", 4}, {"conv", 0}, {"query", {{"lambda", {0.5}}}}}),
       // Behind a conditioned query every value head has keys of its own.
       recurrence(4, 24, 40, 4, 1) + curvature(4, 24, true, true, 4, 1)},
      // N of state_dim by P of head_dim, keys of G groups
      {"mamba2",
       {{"num_heads", 4}, {"head_dim", 24}, {"state_dim", 40}, {"num_groups", 2}},
       recurrence(4, 40, 24, 2, 1) + convolution(4, 4 * 24 + 2 * 2 * 40)},
      {"mamba2",
       {{"num_heads", 4},
        {"head_dim", 24},
        {"state_dim", 40},
        {"num_groups", 2},
        {"query", {{"lambda", {0.5}}}}},
       recurrence(4, 40, 24, 2, 1) + curvature(4, 40, true, true, 2, 1) +
           convolution(4, 4 * 24 + 2 * 2 * 40)},
      {"mesa_net", heads, mesa(2, 24, 40) + convolution(4, 2 * (24 + 24))},
      {"ttt_linear", {{"num_heads", 2}, {"head_dim", 24}, {"mini_batch", 5}}, inner_model(2, 24, 5)},
      {"ttt_linear",
       {{"num_heads", 2}, {"head_dim", 24}, {"mini_batch", 16}, {"conv", 4}},
       inner_model(2, 24, 16) + convolution(4, 2 * 24)},
      {"short_convolution", {{"kernel", 3}}, convolution(3, kWidth)},
  };
}

std::vector<Case> all_cases() {
  std::vector<Case> all = attention_cases();
  for (const auto& more : {power_cases(), recurrent_cases()}) all.insert(all.end(), more.begin(), more.end());
  return all;
}

Surroundings surroundings() {
  Surroundings s;
  s.width = s.model_width = kWidth;
  s.grids.chunk = kChunk;
  return s;
}

OneKind build(const std::string& kind, const Json& settings) {
  return OneKind(kind, settings, surroundings(), OneKind::random_values(kind, settings, surroundings(), 3));
}

std::size_t held(const Layer& layer, Index tokens) {
  State state(layer.fields());
  const KindInput input = random_input(tokens, kWidth, 4);
  std::vector<float> output(static_cast<std::size_t>(tokens * kWidth));
  const View<const float> x(input.inputs[0].data(), tokens, kWidth);
  Ports ports;
  ports.inputs = {&x, 1};
  ports.output = View<float>(output.data(), tokens, kWidth);
  const Segment segment{&state, 0, 0, tokens};
  Context context;
  layer.run(ports, {&segment, 1}, context);
  state.advance(tokens);
  return state.bytes();
}

TEST(StateBytes, AreTheFormulas) {
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(cat(c.kind, " ", c.settings.dump()));
    const OneKind kind = build(c.kind, c.settings);
    for (const Index tokens : {1, 2, 3, 31, 64, 65, 150}) {
      const auto expected = static_cast<std::size_t>(c.bytes(tokens));
      EXPECT_EQ(State::predicted_bytes(kind.layer().fields(), tokens), expected) << tokens << " tokens";
      EXPECT_EQ(held(kind.layer(), tokens), expected) << tokens << " tokens";
    }
  }
}

// Whatever a kind's examples keep is in a formula above.
TEST(StateBytes, FormulasCoverWhatAnyKindKeeps) {
  std::set<std::string> covered, kept;
  for (const Case& c : all_cases()) {
    const OneKind one = build(c.kind, c.settings);
    for (const Field& field : one.layer().fields()) covered.insert(cat(c.kind, ".", field.name));
  }
  for (const auto& [key, kind] : Registry::builtin().kinds()) {
    if (kind.graphs == Kind::Graphs::encoder || key == "embedding" || key == "head") continue;
    for (const std::string& example : kind.examples) {
      Surroundings s = surroundings();
      if (key == "add") s.inputs = 2;
      const Json settings = Json::parse(example);
      const OneKind one(key, settings, s, OneKind::random_values(key, settings, s, 3));
      for (const Field& field : one.layer().fields()) kept.insert(cat(key, ".", field.name));
    }
  }
  for (const std::string& field : kept) EXPECT_TRUE(covered.contains(field)) << field << " is in no formula";
}

}  // namespace
}  // namespace plait
