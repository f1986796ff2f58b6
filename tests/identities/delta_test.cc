// The core of form B, identities of recurrent mixers that need no projections.
#include <gtest/gtest.h>

#include "tests/identities/recurrent_rows.h"

namespace plait {
namespace {

using namespace testing;

RecurrentRows shape(Index rows, Index key_heads, Index value_heads, Index key, Index value, Index channels) {
  RecurrentRows r;
  r.rows = rows;
  r.query_heads = r.key_heads = key_heads;
  r.state_heads = value_heads;
  r.key = key;
  r.value = value;
  r.channels = channels;
  return r;
}

// A row's rounding errors: products of `key` terms, sums over the tokens a state remembers (with unit keys
// and strengths below 2 errors do not grow), so length key + rows.
TEST(Delta, ChunksAreTheRecurrence) {
  expect_recurrence(random_rows(shape(128, 2, 2, 24, 40, 1), 1), delta_core, 4, 24 + 128);
  expect_recurrence(random_rows(shape(100, 1, 2, 40, 24, 1), 2), delta_core, 4, 40 + 100);
  expect_recurrence(random_rows(shape(192, 2, 2, 32, 64, 0), 3), delta_core, 8, 32 + 192);
}

TEST(Delta, NoThreadAndNoNeighbourChangesABit) {
  const RecurrentRows r = random_rows(shape(90, 3, 6, 24, 40, 1), 4);
  const Delta core = delta_core(r, 32);
  const std::vector<Field> fields = core.fields();
  const std::vector<float> alone = through(core, r);
  // Two sequences in one call, the second one 40 rows ahead.
  State first(fields), second(fields);
  std::vector<float> o(alone.size());
  const auto rows = rows_for(core, r, View<float>(o.data(), r.rows, 6 * 40));
  const Segment ahead{&second, 0, 0, 40, nullptr};
  core.run(rows, {&ahead, 1}, {Numerics::exact, Isa::automatic, 2});
  second.advance(40);
  const std::vector<Segment> both = {{&first, 0, 0, 40, nullptr}, {&second, 40, 40, 50, nullptr}};
  core.run(rows, both, {Numerics::exact, Isa::automatic, 2});
  EXPECT_TRUE(same_bits(o, alone));
}

// Identity 3: without decay the gated rule is the plain one, to the last bit.
TEST(Delta, ZeroLogDecayIsNoDecay) {
  RecurrentRows gated = random_rows(shape(80, 2, 2, 24, 40, 1), 5);
  std::fill(gated.g.begin(), gated.g.end(), 0.0f);
  RecurrentRows plain = gated;
  plain.channels = 0;
  plain.g.clear();
  EXPECT_TRUE(same_bits(through(delta_core(gated, 32), gated), through(delta_core(plain, 32), plain)));
}

// Identity 16: orthonormal keys have nothing to erase.
TEST(Delta, OrthonormalKeysAreLinearAttention) {
  RecurrentRows r = random_rows(shape(48, 1, 1, 48, 40, 0), 6);
  std::fill(r.k.begin(), r.k.end(), 0.0f);
  for (Index t = 0; t < r.rows; ++t) r.k[static_cast<std::size_t>(t * 48 + (t * 5) % 48)] = 1;
  const std::vector<float> delta = through(delta_core(r, 32), r), sum = through(sum_core(r, 32), r);
  for (std::size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(delta[i], sum[i]) << i;
}

// Identity 17: strength 1 and a unit key overwrite exactly what the key reads.
TEST(Delta, UnitStrengthOverwrites) {
  RecurrentRows r = random_rows(shape(70, 1, 1, 24, 40, 1), 7);
  std::fill(r.erase.begin(), r.erase.end(), 1.0f);
  r.write = r.erase;
  r.q = r.k;
  expect_near(through(delta_core(r, 32), r), std::vector<double>(r.v.begin(), r.v.end()), 4, 24 + 70);
}

// Identity 18: strength 2 without values reflects, so the state keeps its Frobenius norm.
TEST(Delta, StrengthTwoReflects) {
  RecurrentRows r = random_rows(shape(256, 1, 1, 24, 40, 0), 8);
  std::fill(r.v.begin(), r.v.end(), 0.0f);
  std::fill(r.erase.begin(), r.erase.end(), 2.0f);
  Numbers numbers(9);
  std::vector<double> start(24 * 40);
  for (double& s : start) s = numbers.normal();
  const Delta core = delta_core(r, 32);
  const std::vector<Field> fields = core.fields();
  State state(fields);
  pack_state(r, start, state);
  const auto norm = [&] {
    double sum = 0;
    for (double s : unpack_state(r, state)) sum += s * s;
    return std::sqrt(sum);
  };
  const double before = norm();
  through(core, r, state, {256});
  // Keys are unit to one rounding each, so 256 reflections are off by 4 eps sqrt(256) at most on average.
  EXPECT_NEAR(norm() / before, 1, 4 * kEps * std::sqrt(256.0));
}

// Identity 19: with beta = e and values v / e the erase term is O(e).
TEST(Delta, SmallStrengthsOfLargeValuesAreADecayedSum) {
  const RecurrentRows plain = [] {
    RecurrentRows r = random_rows(shape(60, 1, 2, 24, 40, 1), 10);
    std::fill(r.write.begin(), r.write.end(), 1.0f);
    return r;
  }();
  const std::vector<double> expected = loop([&] {
    RecurrentRows r = plain;
    std::fill(r.erase.begin(), r.erase.end(), 0.0f);
    return r;
  }());
  for (const double small : {0x1p-8, 0x1p-12}) {
    RecurrentRows r = plain;
    std::fill(r.erase.begin(), r.erase.end(), static_cast<float>(small));
    r.write = r.erase;
    for (float& v : r.v) v = static_cast<float>(v / small);
    const std::vector<float> o = through(delta_core(r, 32), r);
    const double error = relative_error(std::vector<double>(o.begin(), o.end()), expected);
    EXPECT_LE(error, 60 * small);
    EXPECT_GE(error, small / 60) << "the erase term must be there";
  }
}

// A decay of -1e4 (clamped to -104, e^-104 = 0) at a token is a reset before it.
TEST(Delta, StrongDecayIsAReset) {
  for (const Index at : {32, 45}) {
    RecurrentRows r = random_rows(shape(80, 1, 1, 24, 40, 1), 11);
    const std::vector<float> o = [&] {
      RecurrentRows cut = r;
      cut.g[static_cast<std::size_t>(at)] = -1e4f;
      return through(delta_core(cut, 32), cut);
    }();
    RecurrentRows rest = r;
    rest.rows = 80 - at;
    const auto drop = [&](std::vector<float>& x, Index width) { x.erase(x.begin(), x.begin() + at * width); };
    drop(rest.q, 24), drop(rest.k, 24), drop(rest.v, 40), drop(rest.g, 1), drop(rest.erase, 1),
        drop(rest.write, 1);
    const std::vector<float> after(o.begin() + at * 40, o.end());
    expect_near(after, loop(rest), 4, 24 + 80);
  }
}

// Tokens with zero strengths and decays leave the state as it is, to the last bit.
TEST(Delta, NeutralTokensKeepTheState) {
  RecurrentRows r = random_rows(shape(64, 2, 2, 24, 40, 1), 12);
  const Delta core = delta_core(r, 32);
  const std::vector<Field> fields = core.fields();
  State state(fields);
  through(core, r, state, {64});
  const std::vector<double> before = unpack_state(r, state);
  RecurrentRows neutral = random_rows(shape(96, 2, 2, 24, 40, 1), 13);
  for (auto* x : {&neutral.g, &neutral.erase, &neutral.write}) std::fill(x->begin(), x->end(), 0.0f);
  through(core, neutral, state, {7});
  EXPECT_EQ(unpack_state(r, state), before);
}

// Identity 39 for the core: heads do not see each other.
TEST(Delta, HeadsPermute) {
  const RecurrentRows r = random_rows(shape(50, 3, 3, 24, 40, 1), 14);
  const std::vector<Index> order = {2, 0, 1};
  const auto permuted = [&](const std::vector<float>& x) {
    const Index width = static_cast<Index>(x.size()) / r.rows / 3;
    std::vector<float> y(x.size());
    for (Index t = 0; t < r.rows; ++t)
      for (Index h = 0; h < 3; ++h)
        std::copy_n(x.begin() + (t * 3 + order[static_cast<std::size_t>(h)]) * width, width,
                    y.begin() + (t * 3 + h) * width);
    return y;
  };
  RecurrentRows p = r;
  p.q = permuted(r.q), p.k = permuted(r.k), p.v = permuted(r.v), p.g = permuted(r.g);
  p.erase = permuted(r.erase), p.write = permuted(r.write);
  EXPECT_TRUE(same_bits(through(delta_core(p, 32), p), permuted(through(delta_core(r, 32), r))));
}

}  // namespace
}  // namespace plait
