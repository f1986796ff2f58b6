// The core of form A, identities of recurrent mixers that need no projections.
#include <gtest/gtest.h>

#include "tests/identities/recurrent_rows.h"

namespace plait {
namespace {

using namespace testing;

RecurrentRows shape(Index rows, Index query_heads, Index key_heads, Index state_heads, Index key, Index value,
                    Index channels) {
  RecurrentRows r;
  r.rows = rows;
  r.query_heads = query_heads;
  r.key_heads = key_heads;
  r.state_heads = state_heads;
  r.key = key;
  r.value = value;
  r.channels = channels;
  return r;
}

RecurrentRows random_sum(const RecurrentRows& s, std::uint64_t seed) {
  RecurrentRows r = random_rows(s, seed);
  std::fill(r.erase.begin(), r.erase.end(), 0.0f);
  return r;
}

TEST(DecayedSum, ChunksAreTheRecurrence) {
  expect_recurrence(random_sum(shape(128, 2, 2, 2, 24, 40, 0), 1), sum_core, 4, 24 + 128);
  expect_recurrence(random_sum(shape(128, 2, 2, 4, 24, 40, 1), 2), sum_core, 4, 24 + 128);
  expect_recurrence(random_sum(shape(100, 4, 2, 2, 40, 33, 1), 3), sum_core, 4, 40 + 100);
  expect_recurrence(random_sum(shape(128, 2, 2, 2, 24, 40, 24), 4), sum_core, 4, 24 + 128);
  expect_recurrence(random_sum(shape(100, 4, 2, 2, 40, 24, 40), 5), sum_core, 4, 40 + 100);
}

// Identities 7 and 8: equal decays over channels are one decay.
TEST(DecayedSum, EqualChannelsAreOneDecay) {
  const RecurrentRows scalar = random_sum(shape(100, 2, 2, 2, 24, 40, 1), 6);
  RecurrentRows channels = scalar;
  channels.channels = 24;
  channels.g.clear();
  for (float g : scalar.g) channels.g.insert(channels.g.end(), 24, g);
  const std::vector<double> expected = loop(scalar);
  expect_near(through(sum_core(channels, 32), channels), expected, 4, 24 + 100);
  expect_near(through(sum_core(scalar, 32), scalar), expected, 4, 24 + 100);
}

// Strong channelwise decays: no exponent is ever positive, so nothing overflows.
TEST(DecayedSum, StrongChannelDecaysStayFinite) {
  RecurrentRows r = random_sum(shape(100, 1, 1, 1, 24, 40, 24), 7);
  Numbers numbers(8);
  for (float& g : r.g)
    if (numbers.uniform(0, 1) < 0.3) g = static_cast<float>(-numbers.uniform(5, 200));
  for (float& g : r.g)
    if (numbers.uniform(0, 1) < 0.01) g = -1e4f;
  RecurrentRows clamped = r;
  for (float& g : clamped.g) g = std::max(g, -104.0f);
  expect_near(through(sum_core(r, 32), r), loop(clamped), 4, 24 + 100);
}

// A strength on the value is a scaled value: identity 9 (Mamba-2 writes dt x).
TEST(DecayedSum, WriteStrengthScalesValues) {
  const RecurrentRows r = random_sum(shape(70, 1, 1, 2, 24, 40, 1), 9);
  RecurrentRows scaled = r;
  for (std::size_t i = 0; i < r.v.size(); ++i) scaled.v[i] = r.v[i] * r.write[i / 40];
  std::fill(scaled.write.begin(), scaled.write.end(), 1.0f);
  EXPECT_TRUE(same_bits(through(sum_core(r, 32), r), through(sum_core(scaled, 32), scaled)));
}

// Keys times c and queries divided by c change nothing; with a power of two not a bit.
TEST(DecayedSum, ScaleMovesBetweenKeysAndQueries) {
  for (const Index channels : {0, 1, 24}) {
    const RecurrentRows r = random_sum(shape(70, 2, 2, 2, 24, 40, channels), 10);
    RecurrentRows moved = r;
    for (float& x : moved.k) x *= 8;
    for (float& x : moved.q) x /= 8;
    EXPECT_TRUE(same_bits(through(sum_core(r, 32), r), through(sum_core(moved, 32), moved))) << channels;
  }
}

TEST(DecayedSum, StrongDecayIsAReset) {
  for (const Index channels : {1, 24})
    for (const Index at : {32, 45}) {
      RecurrentRows r = random_sum(shape(80, 1, 1, 1, 24, 40, channels), 11);
      for (Index c = 0; c < channels; ++c) r.g[static_cast<std::size_t>(at * channels + c)] = -1e4f;
      const std::vector<float> o = through(sum_core(r, 32), r);
      RecurrentRows rest = r;
      rest.rows = 80 - at;
      const auto drop = [&](std::vector<float>& x, Index width) {
        x.erase(x.begin(), x.begin() + at * width);
      };
      drop(rest.q, 24), drop(rest.k, 24), drop(rest.v, 40), drop(rest.g, channels), drop(rest.erase, 1),
          drop(rest.write, 1);
      expect_near(std::vector<float>(o.begin() + at * 40, o.end()), loop(rest), 4, 24 + 80);
    }
}

TEST(DecayedSum, NeutralTokensKeepTheState) {
  for (const Index channels : {0, 1, 24}) {
    RecurrentRows r = random_sum(shape(64, 2, 2, 2, 24, 40, channels), 12);
    const DecayedSum core = sum_core(r, 32);
    const std::vector<Field> fields = core.fields();
    State state(fields);
    through(core, r, state, {64});
    const std::vector<double> before = unpack_state(r, state);
    RecurrentRows neutral = random_sum(shape(96, 2, 2, 2, 24, 40, channels), 13);
    for (auto* x : {&neutral.g, &neutral.write}) std::fill(x->begin(), x->end(), 0.0f);
    through(core, neutral, state, {7});
    EXPECT_EQ(unpack_state(r, state), before) << channels;
  }
}

}  // namespace
}  // namespace plait
