// The core of form D: without its norm it is a delta rule, or linear attention, over keys with a constant
// channel (the bias), which depends on the mini-batch.
#include "layers/recurrent/inner_optimiser.h"

#include <gtest/gtest.h>

#include "tests/identities/recurrent_rows.h"

namespace plait {
namespace {

using namespace testing;

constexpr Index kHeads = 2, kWidth = 24;

struct Case {
  InnerOptimiser::Settings settings;
  Index rows = 0;
  std::vector<float> q, k, target, rate;
};

Case random_case(Index rows, Index mini_batch, bool norm, std::uint64_t seed) {
  Numbers numbers(seed);
  Case c;
  c.rows = rows;
  auto& s = c.settings;
  s.heads = kHeads;
  s.width = kWidth;
  s.mini_batch = mini_batch;
  s.norm = norm;
  s.eps = 1e-6f;
  s.gain = numbers.normals(kHeads * kWidth, 0.1);
  for (float& g : s.gain) g += 1;
  s.bias = numbers.normals(kHeads * kWidth, 0.1);
  s.token_factors.assign(static_cast<std::size_t>(mini_batch), 1.0f);
  s.w0.assign(kHeads * kWidth * kWidth, 0.0f);
  s.b0.assign(kHeads * kWidth, 0.0f);
  c.q = numbers.normals(rows * kHeads * kWidth, 0.2);
  c.k = numbers.normals(rows * kHeads * kWidth);
  normalise_rows(c.k, kWidth);
  c.target = numbers.normals(rows * kHeads * kWidth);
  c.rate.resize(static_cast<std::size_t>(rows * kHeads));
  // Below 1 / |(k, 1)|^2: steps that do not overshoot, so that errors do not grow.
  for (float& rate : c.rate)
    rate =
        static_cast<float>(numbers.uniform(0, 0.4) / std::min<double>(16, static_cast<double>(mini_batch)));
  return c;
}

std::vector<float> run(const Case& c, State& state, const InnerOptimiser& core,
                       const std::vector<Index>& split) {
  std::vector<float> z(c.q.size(), std::nanf(""));
  const auto view = [&](const std::vector<float>& x) {
    return View<const float>(x.data(), c.rows, static_cast<Index>(x.size()) / c.rows);
  };
  const InnerOptimiser::Rows rows = {view(c.q), view(c.k), view(c.target), view(c.rate),
                                     View<float>(z.data(), c.rows, kHeads * kWidth)};
  for (Index done = 0, call = 0; done < c.rows; ++call) {
    const Index count = std::min(split[static_cast<std::size_t>(call) % split.size()], c.rows - done);
    const Segment segment{&state, done, done, count, nullptr};
    core.run(rows, {&segment, 1}, {});
    state.advance(done += count);
  }
  return z;
}

std::vector<float> run(const Case& c) {
  const InnerOptimiser core(c.settings, 0);
  const std::vector<Field> fields = core.fields();
  State state(fields);
  return run(c, state, core, {c.rows});
}

// Keys and queries with a channel 1 for the bias; S = [W; b] starts at zero.
RecurrentRows with_bias_channel(const Case& c) {
  RecurrentRows r;
  r.rows = c.rows;
  r.query_heads = r.key_heads = r.state_heads = kHeads;
  r.key = kWidth + 1;
  r.value = kWidth;
  const auto widen_rows = [](const std::vector<float>& x) {
    std::vector<float> y;
    for (std::size_t i = 0; i < x.size(); i += kWidth) {
      y.insert(y.end(), x.begin() + static_cast<Index>(i), x.begin() + static_cast<Index>(i) + kWidth);
      y.push_back(1);
    }
    return y;
  };
  r.q = widen_rows(c.q);
  r.k = widen_rows(c.k);
  r.v = c.target;
  r.erase = r.write = c.rate;
  return r;
}

TEST(InnerOptimiser, AnySplit) {
  for (const Index mini_batch : {1, 5, 16, 40}) {
    Case c = random_case(100, mini_batch, true, 1);
    c.settings.w0 = Numbers(2).normals(kHeads * kWidth * kWidth, 0.2);
    c.settings.b0 = Numbers(3).normals(kHeads * kWidth, 0.2);
    const InnerOptimiser core(c.settings, 0);
    const std::vector<Field> fields = core.fields();
    State whole(fields);
    const std::vector<float> z = run(c, whole, core, {c.rows});
    for (const std::vector<Index>& split : kSplits) {
      State state(fields);
      EXPECT_TRUE(same_bits(run(c, state, core, split), z)) << mini_batch << ", split " << split[0];
      EXPECT_TRUE(state.equal(whole)) << mini_batch << ", split " << split[0];
    }
  }
}

// Identity 27.
TEST(InnerOptimiser, MiniBatchOneIsTheDeltaRule) {
  const Case c = random_case(100, 1, false, 4);
  expect_near(run(c), loop(with_bias_channel(c)), 4, kWidth + 100);
}

// Identity 28: the delta rule whose erase term reads the state of the mini-batch's start.
TEST(InnerOptimiser, MiniBatchIsADeltaChunkWithoutItsSolve) {
  const Index m = 16;
  const Case c = random_case(100, m, false, 5);
  const RecurrentRows r = with_bias_channel(c);
  std::vector<double> expected(c.q.size());
  for (Index h = 0; h < kHeads; ++h) {
    std::vector<double> now(static_cast<std::size_t>(r.key * r.value)), start;
    for (Index t = 0; t < c.rows; ++t) {
      if (t % m == 0) start = now;
      const float* k = r.k.data() + (t * kHeads + h) * r.key;
      const float* q = r.q.data() + (t * kHeads + h) * r.key;
      for (Index v = 0; v < r.value; ++v) {
        const auto at = [&](Index d) { return static_cast<std::size_t>(d * r.value + v); };
        const Index out = (t * kHeads + h) * r.value + v;
        double old = 0, read = 0;
        for (Index d = 0; d < r.key; ++d) old += start[at(d)] * static_cast<double>(k[d]);
        const double u = static_cast<double>(c.rate[static_cast<std::size_t>(t * kHeads + h)]) *
                         (static_cast<double>(c.target[static_cast<std::size_t>(out)]) - old);
        for (Index d = 0; d < r.key; ++d) now[at(d)] += static_cast<double>(k[d]) * u;
        for (Index d = 0; d < r.key; ++d) read += now[at(d)] * static_cast<double>(q[d]);
        expected[static_cast<std::size_t>(out)] = read;
      }
    }
  }
  expect_near(run(c), expected, 4, kWidth + 100);
}

// Identity 29: one mini-batch from zero weights never reads what it wrote.
TEST(InnerOptimiser, OneMiniBatchIsLinearAttention) {
  const Case c = random_case(100, 100, false, 6);
  RecurrentRows r = with_bias_channel(c);
  std::fill(r.erase.begin(), r.erase.end(), 0.0f);
  expect_near(run(c), loop(r), 4, kWidth + 100);
}

// The gradient through the norm is that of 1/2 |LN(z) - target|^2, by finite differences in double: a first
// token's step is -rate gradient, seen through the bias by a query of zeros.
TEST(InnerOptimiser, GradientIsThatOfTheLoss) {
  Case c = random_case(1, 16, true, 7);
  c.settings.w0 = Numbers(8).normals(kHeads * kWidth * kWidth, 0.2);
  std::fill(c.q.begin(), c.q.end(), 0.0f);
  std::fill(c.rate.begin(), c.rate.end(), 1.0f);
  const std::vector<float> step = run(c);
  std::vector<double> expected;
  for (Index h = 0; h < kHeads; ++h) {
    std::vector<double> z(kWidth);
    for (Index v = 0; v < kWidth; ++v)
      for (Index d = 0; d < kWidth; ++d)
        z[static_cast<std::size_t>(v)] +=
            static_cast<double>(c.k[static_cast<std::size_t>(h * kWidth + d)]) *
            static_cast<double>(c.settings.w0[static_cast<std::size_t>((h * kWidth + d) * kWidth + v)]);
    const auto loss = [&] {
      double mean = 0, variance = 0, sum = 0;
      for (double x : z) mean += x / kWidth;
      for (double x : z) variance += (x - mean) * (x - mean) / kWidth;
      for (Index v = 0; v < kWidth; ++v) {
        const auto i = static_cast<std::size_t>(h * kWidth + v);
        const double y = static_cast<double>(c.settings.gain[i]) * (z[static_cast<std::size_t>(v)] - mean) /
                             std::sqrt(variance + static_cast<double>(c.settings.eps)) +
                         static_cast<double>(c.settings.bias[i]) - static_cast<double>(c.target[i]);
        sum += y * y / 2;
      }
      return sum;
    };
    for (double& x : z) {
      const double at = x, width = 1e-5;
      x = at + width;
      const double above = loss();
      x = at - width;
      const double below = loss();
      x = at;
      expected.push_back(-(above - below) / (2 * width));
    }
  }
  expect_near(step, expected, 8, kWidth);
}

}  // namespace
}  // namespace plait
