// The option `query`: q~ = q - lambda Sigma q in front of a recurrent kind's reads.
#include "layers/recurrent/curvature_conditioned_query.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "layers/reference/mesa_net.h"
#include "tests/identities/mixer_definition.h"
#include "tests/identities/recurrent_rows.h"

namespace plait {
namespace {

using namespace testing;
using reference::Rows;

constexpr Index kRows = 100, kWidth = 40;

Surroundings surroundings(Index chunk = 32) {
  Surroundings s;
  s.width = kWidth;
  s.grids.chunk = chunk;
  return s;
}

struct Backbone {
  const char* kind;
  Json settings;
  Index outputs;
  bool channelwise = false;

  // Keys are features, without convolution and norm.
  bool features() const {
    const std::set<std::string> kinds = {"linear_attention", "based", "rebased", "cosformer"};
    return kinds.count(kind) > 0;
  }
};

// Every shape of heads: groups of queries on a state, states on a key, both one to one.
std::vector<Backbone> backbones() {
  return {{"linear_attention", {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 24}}, 4},
          {"linear_attention", {{"num_heads", 2}, {"head_dim", 5}, {"feature_map", "taylor2"}}, 2},
          {"based", {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 5}}, 4},
          {"cosformer", {{"num_heads", 2}, {"head_dim", 12}, {"M", 200}}, 2},
          {"gated_linear_attention", {{"num_heads", 4}, {"num_kv_heads", 2}, {"head_dim", 24}}, 4, true},
          {"delta_net", {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}}, 2},
          {"gated_delta_net", {{"num_heads", 2}, {"num_value_heads", 4}, {"head_dim", 24}}, 4},
          {"gated_delta_net", {{"num_heads", 2}, {"head_dim", 40}, {"value_head_dim", 24}}, 2},
          {"mamba2", {{"num_heads", 4}, {"head_dim", 24}, {"state_dim", 16}, {"num_groups", 2}}, 4}};
}

Json with_query(const Backbone& backbone, Json query) {
  Json settings = backbone.settings;
  settings["query"] = std::move(query);
  return settings;
}

OneKind make(const Backbone& backbone, const Json& settings, Index chunk = 32) {
  return OneKind(backbone.kind, settings, surroundings(chunk),
                 OneKind::random_values(backbone.kind, settings, surroundings(chunk), 1));
}

// Identity 32: with lambda 0 the backbone, bit for bit, for any Sigma; with another it is not.
TEST(CurvatureConditionedQuery, NoLambdaIsTheBackbone) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Backbone& backbone : backbones()) {
    SCOPED_TRACE(backbone.kind);
    const std::vector<float> plain = make(backbone, backbone.settings).run(input);
    std::vector<Json> queries = {Json::object(), Json{{"lambda", {0}}}};
    if (backbone.channelwise)
      queries.push_back({{"channel_decay", "left"}});
    else
      queries.push_back({{"center", false}, {"normalise", false}});
    for (const Json& query : queries)
      EXPECT_TRUE(same_bits(make(backbone, with_query(backbone, query)).run(input), plain)) << query;
    EXPECT_FALSE(same_bits(make(backbone, with_query(backbone, {{"lambda", {0.25}}})).run(input), plain));
  }
}

// A lambda of 0 in one head leaves that head alone: with the other heads' rows of the output projection
// zeroed, what is left is the backbone's.
TEST(CurvatureConditionedQuery, HeadsHaveTheirOwnLambda) {
  const KindInput input = random_input(kRows, kWidth, 3);
  const Backbone backbone{"linear_attention", {{"num_heads", 2}, {"head_dim", 24}}, 2};
  const Json settings = with_query(backbone, {{"lambda", {0, 0.5}}});
  const auto run = [&](const Json& s, Index silent) {
    OneKind::Values values = OneKind::random_values(backbone.kind, backbone.settings, surroundings(), 1);
    for (Index row = 0; row < kWidth; ++row)
      std::fill_n(values["o"].begin() + row * 48 + silent * 24, 24, 0.0f);
    return OneKind(backbone.kind, s, surroundings(), values).run(input);
  };
  EXPECT_TRUE(same_bits(run(settings, 1), run(backbone.settings, 1)));
  EXPECT_FALSE(same_bits(run(settings, 0), run(backbone.settings, 0)));
}

// Identity 33 in whole layers: chunks of any length are the recurrence of the twin, any split the same bits.
// Lengths and factors as in the kinds' own tests, with the sum over tokens twice: C is one too.
TEST(CurvatureConditionedQuery, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 4);
  std::vector<Backbone> all = backbones();
  // Its plain rows carry the roots of their features, so that no query at all has other bits than lambda 0.
  all.push_back({"rebased", {{"num_heads", 2}, {"head_dim", 6}}, 2});
  for (const Backbone& backbone : all) {
    std::vector<Json> queries = {{{"lambda", {0.125}}}, {{"lambda_source", "tensor"}}};
    if (backbone.channelwise) {
      queries = {{{"lambda", {0.03125}}},
                 {{"lambda", {0.03125}}, {"channel_decay", "both"}},
                 {{"lambda", {0.03125}}, {"channel_decay", "left"}}};
    } else {
      queries.push_back({{"lambda", {0.25}}, {"center", false}});
      // Features are no unit keys and nothing decays: lambda |C| stays below 1, or the weights whose sum a
      // normalised kind divides by cancel.
      queries.push_back({{"lambda", {backbone.features() ? 1e-4 : 0.03125}}, {"normalise", false}});
    }
    for (const Json& query : queries)
      for (const Index chunk : {1, 7, 32, 64}) {
        SCOPED_TRACE(std::string(backbone.kind) + " " + query.dump() + " " + std::to_string(chunk));
        const OneKind kind = make(backbone, with_query(backbone, query), chunk);
        const std::vector<float> whole = kind.run(input);
        expect_near(whole, kind.twin(input), 16, kWidth + 40 + 2 * kRows + 160);
        for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {7, 1, 40}})
          EXPECT_TRUE(same_bits(kind.run(input, {.split = split}), whole)) << split[0];
      }
  }
}

Rows unit_keys(Index rows, Index key, std::uint64_t seed) {
  std::vector<float> k = Numbers(seed).normals(rows * key);
  normalise_rows(k, key);
  Rows wide(rows, key);
  wide.data = widen(k);
  return wide;
}

// q~ of the last of `k.rows` tokens, of one head.
std::vector<double> conditioned(const QuerySettings& s, double lambda, const std::vector<double>& q,
                                const Rows& k, const Rows* g = nullptr) {
  Rows all(k.rows, k.cols);
  std::copy(q.begin(), q.end(), all.row(k.rows - 1));
  reference::Heads heads{1, 1, 1, k.cols, 1, 1};
  reference::condition_query(s, {lambda}, heads, all, k, g);
  return {all.row(k.rows - 1), all.row(k.rows - 1) + k.cols};
}

QuerySettings form(bool center, bool normalise) {
  QuerySettings s;
  s.center = center;
  s.normalise = normalise;
  return s;
}

// Sigma is the second derivative at 0 of ln of the mean of e^{q.k}: by central differences of step h, off by
// h^2 times the fourth derivative over 12 and by eps / h^2: about 1e-7 at h = 1e-3.
TEST(CurvatureConditionedQuery, SigmaIsTheCurvatureOfTheLogPartition) {
  constexpr Index kKey = 6;
  const Rows k = unit_keys(37, kKey, 5);
  const auto potential = [&](const std::vector<double>& q) {
    double sum = 0;
    for (Index t = 0; t < k.rows; ++t) sum += std::exp(std::inner_product(q.begin(), q.end(), k.row(t), 0.0));
    return std::log(sum / static_cast<double>(k.rows));
  };
  const double h = 1e-3;
  for (std::size_t a = 0; a < kKey; ++a) {
    std::vector<double> unit(kKey);
    unit[a] = 1;
    const std::vector<double> sigma = conditioned(form(true, true), 1, unit, k);
    for (std::size_t b = 0; b < kKey; ++b) {
      double difference = 0;
      for (const auto& [i, j] : {std::pair{1, 1}, {1, -1}, {-1, 1}, {-1, -1}}) {
        std::vector<double> q(kKey);
        q[a] += i * h;
        q[b] += j * h;
        difference += i * j * potential(q);
      }
      EXPECT_NEAR(difference / (4 * h * h), unit[b] - sigma[b], 1e-6);
    }
  }
}

// With unit keys and the keys counted, Sigma's eigenvalues lie in [0, 1]: any lambda up to 1 contracts and
// turns nothing round.
TEST(CurvatureConditionedQuery, ContractsUpToOne) {
  Numbers numbers(6);
  for (const Index tokens : {1, 2, 37})
    for (const double lambda : {0.3, 1.0})
      for (const bool center : {false, true}) {
        const std::vector<double> q = widen(numbers.normals(6));
        const std::vector<double> y = conditioned(form(center, true), lambda, q, unit_keys(tokens, 6, 7));
        const double square = std::inner_product(q.begin(), q.end(), q.begin(), 0.0);
        EXPECT_LE(std::inner_product(y.begin(), y.end(), y.begin(), 0.0), square * (1 + 1e-12));
        EXPECT_GE(std::inner_product(q.begin(), q.end(), y.begin(), 0.0), -1e-12 * square);
        // One key has no spread.
        for (std::size_t i = 0; center && tokens == 1 && i < q.size(); ++i) EXPECT_NEAR(y[i], q[i], 1e-12);
      }
}

// Uncentred, uncounted, with 1 / ridge: the first Neumann term of the Mesa layer's read; 100 a decade.
TEST(CurvatureConditionedQuery, IsTheFirstTermOfARidgeSolution) {
  const Rows k = unit_keys(37, 6, 8);
  const std::vector<double> q = widen(Numbers(9).normals(6));
  Rows gram(6, 6);
  for (Index t = 0; t < k.rows; ++t)
    for (Index a = 0; a < 6; ++a)
      for (Index b = 0; b < 6; ++b) gram(a, b) += k(t, a) * k(t, b);
  const auto error = [&](double ridge) {
    std::vector<double> x = reference::solve_exactly(gram, std::vector<double>(6, ridge), q);
    for (double& value : x) value *= ridge;
    return relative_error(conditioned(form(false, false), 1 / ridge, q, k), x);
  };
  EXPECT_NEAR(error(1e4) / error(1e5), 100, 2);
  EXPECT_NEAR(error(1e5) / error(1e6), 100, 2);
}

// -- the part ---------------------------------------------------------------------------------------------

Curvature part_of(const RecurrentRows& r, const QuerySettings& s, double lambda, Index chunk) {
  const auto decay = r.channels == 0   ? Curvature::Decay::none
                     : r.channels == 1 ? Curvature::Decay::scalar
                                       : Curvature::Decay::channelwise;
  const Curvature::Sizes sizes{r.query_heads, r.key_heads, r.state_heads, r.key, chunk, decay};
  return Curvature(sizes, s, std::vector<double>(static_cast<std::size_t>(r.outputs()), lambda), 0);
}

// Queries of all rows, as a layer runs the part: chunk by chunk. [rows, outputs * key]
std::vector<float> run_part(const Curvature& part, const RecurrentRows& r, Index chunk) {
  const std::vector<Field> fields = part.fields();
  State state(fields);
  const std::vector<float> write(static_cast<std::size_t>(r.rows * r.state_heads), 1.0f);
  std::vector<float> y(static_cast<std::size_t>(r.rows * r.outputs() * r.key));
  const Curvature::Rows rows{r.view(r.q), r.view(r.k), r.view(r.g), r.view(write),
                             View<float>(y.data(), r.rows, r.outputs() * r.key)};
  for (Index first = 0; first < r.rows; first += chunk) {
    const ChunkRows now{first, std::min(chunk, r.rows - first), 0};
    for (Index unit = 0; unit < r.key_heads; ++unit) {
      part.absorb(part.bind(state), now, unit, rows, kernels());
      if (now.rows == chunk) part.fold(part.bind(state), unit, kernels());
    }
  }
  return y;
}

RecurrentRows random_part(Index queries, Index keys, Index states, Index channels, std::uint64_t seed) {
  RecurrentRows r;
  r.rows = 100;
  r.query_heads = queries;
  r.key_heads = keys;
  r.state_heads = states;
  r.key = 24;
  r.value = 1;
  r.channels = channels;
  return random_rows(r, seed);
}

std::vector<double> by_definition(const RecurrentRows& r, const QuerySettings& s, double lambda) {
  const auto rows = [&](const std::vector<float>& x) {
    Rows y(r.rows, static_cast<Index>(x.size()) / r.rows);
    y.data = widen(x);
    return y;
  };
  reference::Heads heads{r.query_heads, r.key_heads, r.state_heads, r.key, 1, 1};
  Rows q = rows(r.q);
  const Rows k = rows(r.k), g = rows(r.g);
  reference::condition_query(s, std::vector<double>(static_cast<std::size_t>(r.outputs()), lambda), heads, q,
                             k, r.channels == 0 ? nullptr : &g);
  return q.data;
}

// Identity 33 for the part: its chunk form is the recurrence. A read is `key` terms, then a token each.
TEST(Curvature, ChunksAreTheRecurrence) {
  for (const Index chunk : kChunks) {
    for (const bool center : {false, true})
      for (const bool normalise : {false, true})
        for (const RecurrentRows& r : {random_part(4, 2, 2, 0, 10), random_part(2, 2, 4, 1, 11)}) {
          const QuerySettings s = form(center, normalise);
          const double lambda = normalise ? 0.5 : 0.03;
          expect_near(run_part(part_of(r, s, lambda, chunk), r, chunk), by_definition(r, s, lambda), 4,
                      24 + 100);
        }
    for (const auto decay : {QuerySettings::ChannelDecay::symmetric, QuerySettings::ChannelDecay::both,
                             QuerySettings::ChannelDecay::left}) {
      const RecurrentRows r = random_part(4, 2, 2, 24, 12);
      QuerySettings s = form(false, false);
      s.channel_decay = decay;
      expect_near(run_part(part_of(r, s, 0.03, chunk), r, chunk), by_definition(r, s, 0.03), 4, 24 + 100);
    }
  }
}

// Equal decays over channels, half on either side or one side alone, are one decay; all on both sides decay
// twice as fast.
TEST(Curvature, EqualChannelsAreOneDecay) {
  const RecurrentRows scalar = random_part(2, 2, 2, 1, 13);
  RecurrentRows channels = scalar;
  channels.channels = 24;
  channels.g.clear();
  for (const float g : scalar.g) channels.g.insert(channels.g.end(), 24, g);
  QuerySettings s = form(false, false);
  const std::vector<double> expected = by_definition(scalar, s, 0.1);
  for (const auto decay : {QuerySettings::ChannelDecay::symmetric, QuerySettings::ChannelDecay::left}) {
    s.channel_decay = decay;
    expect_near(run_part(part_of(channels, s, 0.1, 32), channels, 32), expected, 4, 24 + 100);
  }
  s.channel_decay = QuerySettings::ChannelDecay::both;
  RecurrentRows twice = scalar;
  for (float& g : twice.g) g *= 2;
  expect_near(run_part(part_of(channels, s, 0.1, 32), channels, 32),
              by_definition(twice, form(false, false), 0.1), 4, 24 + 100);
}

TEST(Curvature, StrongDecaysStayFinite) {
  for (const Index channels : {1, 24}) {
    RecurrentRows r = random_part(2, 2, 2, channels, 14);
    Numbers numbers(15);
    for (float& g : r.g)
      if (numbers.uniform(0, 1) < 0.3) g = static_cast<float>(-numbers.uniform(5, 1e4));
    RecurrentRows clamped = r;
    for (float& g : clamped.g) g = std::max(g, -104.0f);
    const QuerySettings s = form(channels == 1, channels == 1);
    expect_near(run_part(part_of(r, s, 0.2, 32), r, 32), by_definition(clamped, s, 0.2), 4, 24 + 100);
  }
}

// -- edits ------------------------------------------------------------------------------------------------

// A state that takes nothing lets no key count: frozen from token 40 on, C, m and n stay as they are, so the
// same input row reads the same, however much later.
TEST(CurvatureConditionedQuery, AFrozenStateCountsNoKeys) {
  for (const Backbone& backbone : backbones()) {
    SCOPED_TRACE(backbone.kind);
    Json settings = backbone.settings;
    settings["query"] = {{"lambda", {0.125}}};
    if (backbone.kind == std::string("cosformer")) continue;  // its rows read by their distance, too
    if (!backbone.features()) settings["conv"] = backbone.kind == std::string("mamba2") ? 1 : 0;
    const OneKind kind = make(backbone, settings);
    KindInput input = random_input(kRows, kWidth, 16);
    std::vector<float>& x = input.inputs[0];
    std::copy_n(x.begin() + 45 * kWidth, kWidth, x.begin() + 50 * kWidth);
    const RangeEdit freeze = range_edit(Site::state, Operator::freeze, 40, 64);
    const std::vector<float> y = run_edited(kind, input, freeze);
    EXPECT_TRUE(same_bits(std::vector<float>(y.begin() + 45 * kWidth, y.begin() + 46 * kWidth),
                          std::vector<float>(y.begin() + 50 * kWidth, y.begin() + 51 * kWidth)));
    const std::vector<float> plain = kind.run(input);
    EXPECT_FALSE(same_bits(std::vector<float>(plain.begin() + 45 * kWidth, plain.begin() + 46 * kWidth),
                           std::vector<float>(plain.begin() + 50 * kWidth, plain.begin() + 51 * kWidth)));
  }
}

// Edits of the state's matrix and stale reads act on the backbone's S, with the queries of today.
TEST(CurvatureConditionedQuery, StateEditsLeaveTheCurvatureAlone) {
  for (const Backbone& backbone : backbones()) {
    SCOPED_TRACE(backbone.kind);
    const OneKind kind = make(backbone, with_query(backbone, {{"lambda", {0.125}}}));
    const auto fields = kind.layer().fields();
    const KindInput input = random_input(kRows, kWidth, 17);
    for (const auto& [op, every] : {std::pair{Operator::rank, Every::chunk},
                                    {Operator::rank, Every::token},
                                    {Operator::stale, Every::unset}}) {
      Edit edit = range_edit(Site::state, op, 0, kRows, {}, 1).edit;
      edit.every = every;
      Edits edits;
      edits.add(&edit);
      State plain(fields), edited(fields);
      edited.remember(memory_of(edit));
      std::vector<float> y(static_cast<std::size_t>(kRows * kWidth));
      const std::vector<View<const float>> inputs = {{input.inputs[0].data(), kRows, kWidth}};
      Ports ports;
      ports.inputs = inputs;
      ports.output = View<float>(y.data(), kRows, kWidth);
      Context context{};
      for (State* state : {&plain, &edited}) {
        const Segment segment{state, 0, 0, kRows, state == &edited ? &edits : nullptr};
        kind.layer().run(ports, {&segment, 1}, context);
        state->advance(kRows);
      }
      bool differs = false;
      for (std::size_t f = 0; f < fields.size(); ++f) {
        if (fields[f].kind != Field::Kind::anchor) continue;
        const auto i = static_cast<Index>(f);
        const std::size_t count = static_cast<std::size_t>(fields[f].width());
        const bool same = std::equal(plain.peek(i), plain.peek(i) + count, edited.peek(i));
        if (fields[f].name.starts_with("query_")) {
          EXPECT_TRUE(same) << fields[f].name;
        }
        if (fields[f].name == "S") differs = !same;
      }
      EXPECT_EQ(differs, op == Operator::rank);
    }
  }
}

// -- settings ---------------------------------------------------------------------------------------------

std::string refusal(const Backbone& backbone, const Json& query) {
  try {
    make(backbone, with_query(backbone, query));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(CurvatureConditionedQuery, RefusesWhatMeansNothing) {
  const auto expect = [](const std::string& said, const char* wanted) {
    EXPECT_NE(said.find(wanted), std::string::npos) << said;
  };
  for (const Backbone& backbone : backbones()) {
    EXPECT_EQ(refusal(backbone, Json::object()), "");
    expect(refusal(backbone, {{"lambda", {0.1, 0.2, 0.3}}}), "query.lambda has 3 numbers");
    expect(refusal(backbone, {{"form", "other"}}), "other");
    expect(refusal(backbone, {{"lambda", {0.1}}, {"lambda_source", "tensor"}}),
           "query.lambda means nothing while query.lambda_source is tensor");
    if (backbone.channelwise) {
      expect(refusal(backbone, {{"center", true}}), "query.center counts the keys");
      expect(refusal(backbone, {{"normalise", true}}), "query.normalise counts the keys");
    } else {
      expect(refusal(backbone, {{"channel_decay", "both"}}), "channel_decay");
    }
  }
}

}  // namespace
}  // namespace plait
