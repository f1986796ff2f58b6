#include "layers/reference/mesa_net.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "layers/recurrent/ridge_solver.h"
#include "tests/identities/mixer_definition.h"
#include "tests/identities/recurrent_rows.h"

namespace plait::testing {

// The inputs of a decayed sum with strengths, and what their rows are solved against.
inline RidgeSolver::Rows rows_for(const RidgeSolver&, const RecurrentRows& r, View<float> o) {
  return {r.view(r.q), r.view(r.k), r.view(r.v), r.view(r.g), r.view(r.write), o};
}

}  // namespace plait::testing

namespace plait {
namespace {

using namespace testing;
using reference::Rows;
using Start = MesaNetSettings::Start;
using Solver = MesaNetSettings::Solver;

constexpr Index kRows = 100, kWidth = 40;
const Json kSettings = {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}};

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values("mesa_net", settings, surroundings(), 1);
}

// Projections, products with the state, the sum over tokens and the output projection; the norm divides by
// what may be a small sum, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 80;

TEST(MesaNet, MeetsItsTwin) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& more :
       {Json::object(), Json{{"solver", "cholesky"}, {"gate", "silu"}},
        Json{{"cg_start", "diagonal"}, {"cg_steps", 7}, {"conv", 0}}, Json{{"cg_eps", 0}, {"cg_steps", 40}},
        Json{{"num_heads", 3}, {"head_dim", 40}, {"value_head_dim", 24}, {"lambda_min", 2}}}) {
    SCOPED_TRACE(more.dump());
    Json settings = kSettings;
    settings.update(more);
    const OneKind kind("mesa_net", settings, surroundings(), random_values(settings));
    expect_near(kind.run(input), kind.twin(input), 16, kLength);
  }
}

// Identity 1: the chunk length is no part of the function.
TEST(MesaNet, AnyChunkLength) {
  const KindInput input = random_input(kRows, kWidth, 3);
  for (const char* solver : {"cg", "cholesky"})
    for (const Index chunk : {1, 3, 8, 16, 64}) {
      Surroundings s = surroundings();
      s.grids.chunk = chunk;
      Json settings = kSettings;
      settings["solver"] = solver;
      const OneKind kind("mesa_net", settings, s, random_values(settings));
      const std::vector<float> whole = kind.run(input);
      expect_near(whole, kind.twin(input), 16, kLength);
      EXPECT_TRUE(same_bits(kind.run(input, {.split = {7, 1, 40}}), whole)) << chunk;
    }
}

TEST(MesaNet, EditsAsDefined) {
  Json settings = kSettings;
  settings.update({{"solver", "cholesky"}, {"gate", "silu"}});
  expect_edits_as_defined("mesa_net", settings, surroundings(), 16, kLength);
}

TEST(MesaNet, RefusesWhatMeansNothing) {
  const auto refusal = [](const Json& more) {
    Json settings = kSettings;
    settings.update(more);
    try {
      random_values(settings);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal({{"cg_steps", 0}}), "");
  EXPECT_NE(refusal({{"cg_steps", 2000}}).find("at most 1024"), std::string::npos);
  EXPECT_NE(refusal({{"solver", "cholesky"}, {"cg_eps", 0}}).find("mean nothing while solver is cholesky"),
            std::string::npos);
  for (const char* key : {"cg_eps", "cg_tolerance", "lambda_min", "norm_eps"})
    EXPECT_NE(refusal({{key, -0.5}}).find(cat("'", key, "' must be a number of at least 0, found -0.5")),
              std::string::npos);
}

// A row that stops early is off by what its residual allows: |x - x*| <= |r| / lambda_min, and lambda is at
// least 1/4 here; the state is not touched by it. The first steps are the same, so a loose tolerance and a
// tight one differ.
TEST(MesaNet, ToleranceStopsRowsEarly) {
  const KindInput input = random_input(kRows, kWidth, 4);
  const auto with = [&](double tolerance) {
    Json settings = kSettings;
    settings.update({{"cg_eps", 0}, {"cg_tolerance", tolerance}});
    const OneKind kind("mesa_net", settings, surroundings(), random_values(kSettings));
    const std::vector<float> whole = kind.run(input);
    EXPECT_TRUE(same_bits(kind.run(input, {.split = {7, 1, 40}}), whole)) << tolerance;
    return whole;
  };
  const std::vector<double> all = widen(with(0));
  const double loose = relative_error(widen(with(0.1)), all), tight = relative_error(widen(with(1e-4)), all);
  EXPECT_GT(loose, 1e-3);
  EXPECT_LT(tight, loose / 50);
  EXPECT_GT(tight, 0);
}

// -- the core ---------------------------------------------------------------------------------------------

RecurrentRows random_sum(Index rows, Index heads, Index key, Index value, std::uint64_t seed) {
  RecurrentRows r;
  r.rows = rows;
  r.query_heads = r.key_heads = r.state_heads = heads;
  r.key = key;
  r.value = value;
  r.channels = 1;
  r = random_rows(r, seed);
  for (float& x : r.write) x /= 2;
  std::fill(r.erase.begin(), r.erase.end(), 0.0f);
  return r;
}

MesaNetSettings settings_of(const RecurrentRows& r, Solver solver) {
  MesaNetSettings s;
  s.num_heads = r.state_heads;
  s.head_dim = r.key;
  s.value_head_dim = r.value;
  s.solver = solver;
  return s;
}

RidgeSolver core_of(const RecurrentRows& r, const MesaNetSettings& s, const std::vector<float>& lambda,
                    Index chunk) {
  RidgeSolver::Settings core;
  core.heads = s.num_heads;
  core.key = s.head_dim;
  core.value = s.value_head_dim;
  core.chunk = chunk;
  core.method =
      s.solver == Solver::cg ? RidgeSolver::Method::conjugate_gradient : RidgeSolver::Method::cholesky;
  core.steps = s.cg_steps;
  core.eps = static_cast<float>(s.cg_eps);
  core.first = s.cg_start == Start::zero ? RidgeSolver::First::zero : RidgeSolver::First::diagonal;
  core.ridge = lambda;
  EXPECT_EQ(r.key * r.state_heads, static_cast<Index>(lambda.size()));
  return RidgeSolver(core, 0);
}

Rows wide(const RecurrentRows& r, const std::vector<float>& x) {
  Rows y(r.rows, static_cast<Index>(x.size()) / r.rows);
  y.data = widen(x);
  return y;
}

std::vector<double> by_definition(const RecurrentRows& r, const MesaNetSettings& s,
                                  const std::vector<float>& lambda) {
  return reference::mesa_reads(s, wide(r, r.q), wide(r, r.k), wide(r, r.v), wide(r, r.g), wide(r, r.write),
                               widen(lambda))
      .data;
}

std::vector<float> ridges(Index count, std::uint64_t seed) {
  Numbers numbers(seed);
  std::vector<float> all;
  for (Index i = 0; i < count; ++i) all.push_back(static_cast<float>(numbers.uniform(0.25, 2)));
  return all;
}

// The products with H by the open rows are those with the matrix itself, and a state is the same bits over
// any split.
TEST(RidgeSolver, ChunksAreTheRecurrence) {
  const RecurrentRows r = random_sum(128, 2, 24, 40, 5);
  const std::vector<float> lambda = ridges(48, 6);
  std::vector<MesaNetSettings> all = {settings_of(r, Solver::cg), settings_of(r, Solver::cg),
                                      settings_of(r, Solver::cholesky)};
  all[1].cg_start = Start::diagonal;
  for (const MesaNetSettings& s : all) {
    const std::vector<double> expected = by_definition(r, s, lambda);
    for (const Index chunk : kChunks) {
      const RidgeSolver core = core_of(r, s, lambda, chunk);
      const std::vector<Field> fields = core.fields();
      State whole(fields);
      const std::vector<float> o = through(core, r, whole, {r.rows});
      expect_near(o, expected, 8, 24 + 128);
      for (const std::vector<Index>& split : kSplits) {
        State state(fields);
        EXPECT_TRUE(same_bits(through(core, r, state, split), o)) << chunk << ", split " << split[0];
        EXPECT_TRUE(state.equal(whole)) << chunk << ", split " << split[0];
      }
    }
  }
}

TEST(RidgeSolver, StrongDecayIsAReset) {
  for (const Index at : {32, 45}) {
    RecurrentRows r = random_sum(80, 1, 24, 40, 7), rest = r;
    const std::vector<float> lambda = ridges(24, 8);
    r.g[static_cast<std::size_t>(at)] = -1e4f;
    rest.rows -= at;
    for (auto* x : {&rest.q, &rest.k, &rest.v, &rest.g, &rest.write})
      x->erase(x->begin(), x->begin() + static_cast<std::ptrdiff_t>(x->size()) / 80 * at);
    const MesaNetSettings s = settings_of(r, Solver::cholesky);
    const std::vector<float> o = through(core_of(r, s, lambda, 32), r);
    expect_near(std::vector<float>(o.begin() + at * 40, o.end()), by_definition(rest, s, lambda), 8, 24 + 80);
  }
}

TEST(RidgeSolver, NeutralTokensKeepTheState) {
  const RecurrentRows r = random_sum(64, 2, 24, 40, 9);
  const RidgeSolver core = core_of(r, settings_of(r, Solver::cg), ridges(48, 10), 32);
  const std::vector<Field> fields = core.fields();
  State state(fields);
  through(core, r, state, {64});
  const std::vector<double> before = unpack_state(r, state);
  const std::vector<float> gram(state.peek(1), state.peek(1) + 2 * 24 * 32);
  RecurrentRows neutral = random_sum(96, 2, 24, 40, 11);
  for (auto* x : {&neutral.g, &neutral.write}) std::fill(x->begin(), x->end(), 0.0f);
  through(core, neutral, state, {7});
  EXPECT_EQ(unpack_state(r, state), before);
  EXPECT_EQ(std::vector<float>(state.peek(1), state.peek(1) + 2 * 24 * 32), gram);
}

// Identity 30: with a large lambda, the reads times lambda are a decayed sum of w k v'. The next term is
// H / lambda, |H| at most some ten here: 1e-9 in double at 1e10; at 2^28 below the roundings of f32.
TEST(RidgeSolver, LargeLambdaIsADecayedSum) {
  const RecurrentRows r = random_sum(100, 2, 24, 40, 12);
  const std::vector<double> expected = loop(r);
  MesaNetSettings s = settings_of(r, Solver::cholesky);
  std::vector<double> reads = by_definition(r, s, std::vector<float>(48, 1e10f));
  for (double& x : reads) x *= static_cast<double>(1e10f);
  EXPECT_LE(relative_error(reads, expected), 1e-9);
  for (const Solver solver : {Solver::cg, Solver::cholesky}) {
    s.solver = solver;
    s.cg_eps = 0;
    std::vector<float> o = through(core_of(r, s, std::vector<float>(48, 0x1p28f), 32), r);
    for (float& x : o) x *= 0x1p28f;
    expect_near(o, expected, 4, 24 + 100);
  }
}

// For a large lambda, lambda x = (I - H / lambda) q with an error of the second order: ratio 100 a decade.
TEST(RidgeSolver, FirstNeumannTermIsOfSecondOrder) {
  const RecurrentRows r = random_sum(1, 1, 6, 5, 13);
  Numbers numbers(14);
  Rows h(6, 6);
  for (int token = 0; token < 37; ++token) {
    const std::vector<float> k = numbers.normals(6, 0.4);
    for (Index a = 0; a < 6; ++a)
      for (Index b = 0; b < 6; ++b)
        h(a, b) += static_cast<double>(k[static_cast<std::size_t>(a)]) *
                   static_cast<double>(k[static_cast<std::size_t>(b)]);
  }
  const std::vector<double> q = widen(r.q);
  const auto error = [&](double lambda) {
    std::vector<double> x = reference::solve_exactly(h, std::vector<double>(6, lambda), q), expected = q;
    for (Index a = 0; a < 6; ++a)
      for (Index b = 0; b < 6; ++b)
        expected[static_cast<std::size_t>(a)] -= h(a, b) / lambda * q[static_cast<std::size_t>(b)];
    for (double& value : x) value *= lambda;
    return relative_error(x, expected);
  };
  EXPECT_NEAR(error(1e4) / error(1e5), 100, 2);
  EXPECT_NEAR(error(1e5) / error(1e6), 100, 2);
}

// Identity 31, and what the guards cost: after K steps without them conjugate gradient is exact; with 1e-5 it
// stays 1e-5 to 1e-3 away after 30 steps, and the two starts differ by as much.
TEST(RidgeSolver, GuardsKeepConjugateGradientFromConverging) {
  for (const Index key : {6, 8}) {
    const RecurrentRows r = random_sum(37, 1, key, 5, 15);
    const std::vector<float> lambda = ridges(key, 16);
    const std::vector<double> exact = by_definition(r, settings_of(r, Solver::cholesky), lambda);
    MesaNetSettings s = settings_of(r, Solver::cg);
    s.cg_steps = key;
    s.cg_eps = 0;
    EXPECT_LE(relative_error(by_definition(r, s, lambda), exact), 1e-12);
    s.cg_steps = 30;
    s.cg_eps = 1e-5;
    const std::vector<double> guarded = by_definition(r, s, lambda);
    EXPECT_LE(relative_error(guarded, exact), 1e-3);
    EXPECT_GE(relative_error(guarded, exact), 1e-5);
    s.cg_start = Start::diagonal;
    const std::vector<double> diagonal = by_definition(r, s, lambda);
    EXPECT_LE(relative_error(diagonal, guarded), 1e-3);
    EXPECT_GE(relative_error(diagonal, guarded), 1e-5);
  }
}

// Without a step the answer is the start: 0, or q over the diagonal, a preconditioned decayed sum.
TEST(RidgeSolver, NoStepsLeaveTheStart) {
  const RecurrentRows r = random_sum(70, 2, 24, 40, 17);
  const std::vector<float> lambda = ridges(48, 18);
  MesaNetSettings s = settings_of(r, Solver::cg);
  s.cg_steps = 0;
  for (const float x : through(core_of(r, s, lambda, 32), r)) EXPECT_EQ(x, 0);
  s.cg_start = Start::diagonal;
  RecurrentRows divided = r;
  for (Index h = 0; h < 2; ++h)
    for (Index c = 0; c < 24; ++c) {
      double diagonal = 0;
      for (Index t = 0; t < r.rows; ++t) {
        const auto place = static_cast<std::size_t>((t * 2 + h) * 24 + c);
        const auto row = static_cast<std::size_t>(t * 2 + h);
        diagonal = std::exp(static_cast<double>(r.g[row])) * diagonal +
                   static_cast<double>(r.write[row]) * std::pow(static_cast<double>(r.k[place]), 2);
        divided.q[place] = static_cast<float>(
            static_cast<double>(r.q[place]) /
            (diagonal + static_cast<double>(lambda[static_cast<std::size_t>(h * 24 + c)]) + 1e-5));
      }
    }
  expect_near(through(core_of(r, s, lambda, 32), r), loop(divided), 4, 24 + 70);
}

// beta 1 and no decay: what is read with unit queries are the coefficients W of the ridge regression of the
// values on the keys, where the gradient K'(K W - V) + diag(lambda) W vanishes.
TEST(RidgeSolver, ExactReadsAreRidgeRegression) {
  constexpr Index kKey = 6, kValue = 5;
  const std::vector<float> lambda = ridges(kKey, 20);
  RecurrentRows r = random_sum(37, 1, kKey, kValue, 19);
  std::fill(r.g.begin(), r.g.end(), 0.0f);
  std::fill(r.write.begin(), r.write.end(), 1.0f);
  Rows w(kKey, kValue);
  for (Index d = 0; d < kKey; ++d) {
    for (Index c = 0; c < kKey; ++c)
      r.q[static_cast<std::size_t>((r.rows - 1) * kKey + c)] = c == d ? 1.0f : 0.0f;
    const std::vector<double> o = by_definition(r, settings_of(r, Solver::cholesky), lambda);
    std::copy(o.end() - kValue, o.end(), w.row(d));
  }
  const Rows k = wide(r, r.k), v = wide(r, r.v);
  for (Index d = 0; d < kKey; ++d)
    for (Index c = 0; c < kValue; ++c) {
      double gradient = static_cast<double>(lambda[static_cast<std::size_t>(d)]) * w(d, c);
      for (Index t = 0; t < r.rows; ++t)
        gradient +=
            k(t, d) *
            (std::inner_product(
                 k.row(t), k.row(t) + kKey,
                 std::array<double, kKey>{w(0, c), w(1, c), w(2, c), w(3, c), w(4, c), w(5, c)}.begin(),
                 0.0) -
             v(t, c));
      EXPECT_NEAR(gradient, 0, 1e-12);
    }
}

}  // namespace
}  // namespace plait
