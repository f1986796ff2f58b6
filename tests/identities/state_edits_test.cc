// state/{rank, noise, cast}, which act on the matrix a state is, and the image state/swap puts in: what they
// do to a state, and that the run goes on from there.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "runtime/base/half.h"
#include "runtime/base/noise.h"
#include "runtime/run/state_matrix.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"
#include "tests/typical_edit.h"

namespace plait {
namespace {

using testing::expect_near;
using testing::KindInput;
using testing::Numbers;
using testing::OneKind;
using testing::same_bits;

constexpr Index kWidth = 48, kChunk = 16;

Surroundings surroundings(Index chunk = kChunk) {
  Surroundings s;
  s.width = kWidth;
  s.grids = {chunk, 64, 128};
  return s;
}

struct Matrix {
  explicit Matrix(Index rows, Index cols, StateMatrix::Last last)
      : room(static_cast<std::size_t>(rows * round_up(cols, 32))), view{room.data(), rows, cols, last} {}
  float& at(Index r, Index c) { return view.row(c / 32 * 32, r)[c % 32]; }
  std::vector<float> room;
  StateMatrix view;
};

// `count` orthonormal columns of length n, by Gram and Schmidt, twice.
std::vector<std::vector<double>> orthonormal(Index n, Index count, std::uint64_t seed) {
  Numbers numbers(seed);
  std::vector<std::vector<double>> all;
  while (static_cast<Index>(all.size()) < count) {
    std::vector<double> x;
    for (Index i = 0; i < n; ++i) x.push_back(numbers.normal());
    for (int pass = 0; pass < 2; ++pass)
      for (const auto& y : all) {
        const double along = std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
        for (std::size_t i = 0; i < x.size(); ++i) x[i] -= along * y[i];
      }
    const double length = std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
    for (double& value : x) value /= length;
    all.push_back(x);
  }
  return all;
}

// Eckart and Young: the best approximation keeps the largest singular values. Values 1, 1/2, 1/4, ... are at
// least half their size apart, so the rounding of the elements to f32, at most eps/2 each and eps sqrt(n)/2
// in norm, turns a kept vector by less than four times that.
TEST(StateMatrix, TruncationKeepsTheLargestSingularValues) {
  constexpr Index kValues = 6;
  for (const auto& [rows, cols] :
       std::vector<std::pair<Index, Index>>{{24, 40}, {40, 24}, {33, 33}, {7, 70}, {128, 64}})
    for (const auto last : {StateMatrix::Last::padded, StateMatrix::Last::narrow})
      for (const Index rank : {1, 3, 5}) {
        Matrix m(rows, cols, last);
        const auto u = orthonormal(rows, kValues, 3), v = orthonormal(cols, kValues, 4);
        std::vector<double> expected, actual;
        for (Index r = 0; r < rows; ++r)
          for (Index c = 0; c < cols; ++c) {
            double all = 0, kept = 0;
            for (Index i = 0; i < kValues; ++i) {
              const auto k = static_cast<std::size_t>(i);
              all += std::ldexp(u[k][static_cast<std::size_t>(r)] * v[k][static_cast<std::size_t>(c)],
                                -static_cast<int>(i));
              if (i < rank) kept = all;
            }
            m.at(r, c) = static_cast<float>(all);
            expected.push_back(kept);
          }
        truncate(m.view, rank);
        for (Index r = 0; r < rows; ++r)
          for (Index c = 0; c < cols; ++c) actual.push_back(static_cast<double>(m.at(r, c)));
        expect_near(actual, expected, 4, static_cast<double>(std::max(rows, cols)));
      }
}

TEST(StateMatrix, FullRankChangesNoBit) {
  Matrix m(24, 40, StateMatrix::Last::padded);
  Numbers numbers(4);
  for (Index r = 0; r < 24; ++r)
    for (Index c = 0; c < 40; ++c) m.at(r, c) = static_cast<float>(numbers.normal());
  const std::vector<float> before = m.room;
  truncate(m.view, 24);
  EXPECT_TRUE(same_bits(m.room, before));
}

// The settings of a small layer of every kind that has a matrix for its state, and the field it is.
struct Subject {
  const char* kind;
  Json settings;
  Index field, rows, cols, heads;
};

std::vector<Subject> subjects() {
  return {
      {"linear_attention", {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}}, 0, 24, 41, 2},
      {"cosformer", {{"num_heads", 2}, {"head_dim", 12}, {"value_head_dim", 40}, {"M", 200}}, 0, 24, 41, 2},
      {"based", {{"num_heads", 2}, {"head_dim", 5}, {"value_head_dim", 40}}, 0, 21, 41, 2},
      {"rebased", {{"num_heads", 2}, {"head_dim", 6}, {"value_head_dim", 40}}, 0, 21, 41, 2},
      {"gated_linear_attention",
       {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}, {"conv", 0}},
       0,
       24,
       40,
       2},
      {"delta_net", {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}}, 1, 24, 40, 2},
      {"gated_delta_net",
       {{"num_heads", 1}, {"num_value_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}},
       1,
       24,
       40,
       2},
      {"mesa_net",
       {{"num_heads", 2}, {"head_dim", 24}, {"value_head_dim", 40}, {"solver", "cholesky"}},
       1,
       24,
       40,
       2},
      {"mamba2", {{"num_heads", 2}, {"head_dim", 40}, {"state_dim", 24}}, 1, 24, 40, 2},
      {"ttt_linear", {{"num_heads", 2}, {"head_dim", 24}, {"mini_batch", kChunk}}, 0, 24, 24, 2},
      {"polynomial_attention",
       {{"num_heads", 2}, {"head_dim", 6}, {"value_head_dim", 40}, {"degree", 2}, {"decay", "scalar"}},
       0,
       21,
       40,
       2},
      {"power_retention",
       {{"num_heads", 2}, {"head_dim", 6}, {"value_head_dim", 40}, {"switch_over_seq_len", kChunk}},
       0,
       21,
       40,
       2}};
}

// Rows [begin, end) of the input through a layer, with an edit or without.
std::vector<float> feed(const Layer& layer, State& state, const KindInput& input, Index begin, Index end,
                        const Edit* edit) {
  const Index out = layer.signature().output;
  std::vector<float> y(static_cast<std::size_t>((end - begin) * out));
  const View<const float> x(input.inputs[0].data() + begin * kWidth, end - begin, kWidth);
  Edits edits;
  if (edit) edits.add(edit);
  Ports ports;
  ports.inputs = {&x, 1};
  ports.output = View<float>(y.data(), end - begin, out);
  const Segment segment{&state, begin, 0, end - begin, edit ? &edits : nullptr};
  Context context{};
  layer.run(ports, {&segment, 1}, context);
  state.advance(end);
  return y;
}

Edit state_edit(Operator op, Every every, double value = 0, std::vector<Index> heads = {}) {
  Edit edit;
  edit.node = "tested";
  edit.site = Site::state;
  edit.op = op;
  edit.every = every;
  edit.value = value;
  edit.heads = std::move(heads);
  return edit;
}

float rounded(float x, Storage to, float scale) {
  if (to == Storage::bf16) return to_float(to_bf16(x));
  if (to == Storage::fp16) return to_float(to_f16(x));
  return std::nearbyint(x / scale) * scale;
}

class StateEdits : public ::testing::TestWithParam<Subject> {
 protected:
  StateEdits()
      : layer_(GetParam().kind, GetParam().settings, surroundings(),
               OneKind::random_values(GetParam().kind, GetParam().settings, surroundings(), 5)),
        input_(testing::random_input(60, kWidth, 6)) {}

  StateMatrix matrix(State& state, Index head) const {
    const Subject& s = GetParam();
    const bool narrow =
        std::string(s.kind) == "polynomial_attention" || std::string(s.kind) == "power_retention";
    const Index elements = s.rows * (narrow ? s.cols : round_up(s.cols, 32));
    return {state.anchor(s.field) + head * elements, s.rows, s.cols,
            narrow ? StateMatrix::Last::narrow : StateMatrix::Last::padded};
  }
  // Elements of a head [rows * cols].
  std::vector<float> elements(State& state, Index head) const {
    const StateMatrix m = matrix(state, head);
    std::vector<float> all;
    for (Index r = 0; r < m.rows; ++r)
      for (Index c = 0; c < m.cols; ++c) all.push_back(m.row(c / 32 * 32, r)[c % 32]);
    return all;
  }
  State run(Index end, const Edit* edit) const {
    State state(layer_.layer().fields());
    feed(layer_.layer(), state, input_, 0, end, edit);
    return state;
  }

  OneKind layer_;
  KindInput input_;
};

// At a boundary the fold is followed by the operator, on the heads in scope alone.
TEST_P(StateEdits, CastIsTheRoundedFold) {
  for (const Storage to : {Storage::bf16, Storage::fp16, Storage::int8}) {
    Edit cast = state_edit(Operator::cast, Every::chunk, 0, {1});
    cast.to = to;
    State plain = run(kChunk, nullptr), edited = run(kChunk, &cast);
    EXPECT_TRUE(same_bits(elements(edited, 0), elements(plain, 0)));
    std::vector<float> expected = elements(plain, 1);
    float largest = 0;
    for (const float x : expected) largest = std::max(largest, std::abs(x));
    for (float& x : expected) x = rounded(x, to, largest / 127);
    const std::vector<float> actual = elements(edited, 1);
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(actual[i], expected[i]) << name_of(to);
  }
}

TEST_P(StateEdits, NoiseIsRelativeToTheFold) {
  Edit noise = state_edit(Operator::noise, Every::chunk, 0.25);
  noise.seed = 3;
  State plain = run(kChunk, nullptr), edited = run(kChunk, &noise);
  std::vector<float> differences[2];
  for (Index h = 0; h < 2; ++h) {
    const std::vector<float> a = elements(plain, h), b = elements(edited, h);
    double size = 0, change = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      size += std::pow(static_cast<double>(a[i]), 2);
      change += std::pow(static_cast<double>(b[i] - a[i]), 2);
      differences[h].push_back(b[i] - a[i]);
    }
    // The mean square of n normal numbers is 1 within five times sqrt(2 / n).
    const double n = static_cast<double>(a.size());
    EXPECT_NEAR(change / size, 0.0625, 0.0625 * 5 * std::sqrt(2 / n));
  }
  EXPECT_FALSE(same_bits(differences[0], differences[1]));
  State again = run(kChunk, &noise);
  EXPECT_TRUE(again.equal(edited));
  noise.seed = 4;
  EXPECT_FALSE(run(kChunk, &noise).equal(edited));
}

TEST_P(StateEdits, RankIsTheTruncatedFold) {
  const Edit rank = state_edit(Operator::rank, Every::chunk, 3);
  State plain = run(kChunk, nullptr), edited = run(kChunk, &rank);
  for (Index h = 0; h < 2; ++h) {
    truncate(matrix(plain, h), 3);
    EXPECT_TRUE(same_bits(elements(edited, h), elements(plain, h)));
  }
}

// Operators that change nothing: bit-identical, state and outputs.
TEST_P(StateEdits, IdentitiesChangeNoBit) {
  State plain(layer_.layer().fields());
  const std::vector<float> expected = feed(layer_.layer(), plain, input_, 0, 60, nullptr);
  for (const Edit& edit :
       {state_edit(Operator::rank, Every::chunk, 1000), state_edit(Operator::noise, Every::chunk)}) {
    State state(layer_.layer().fields());
    EXPECT_TRUE(same_bits(feed(layer_.layer(), state, input_, 0, 60, &edit), expected));
    EXPECT_TRUE(state.equal(plain));
  }
}

// Edited once at a boundary, the run goes on from the edited state: what follows is the plain recurrence.
TEST_P(StateEdits, Propagate) {
  const Edit rank = state_edit(Operator::rank, Every::chunk, 2);
  State edited = run(kChunk, &rank), by_hand = run(kChunk, nullptr);
  for (Index h = 0; h < 2; ++h) truncate(matrix(by_hand, h), 2);
  for (std::size_t f = 0; f < layer_.layer().fields().size(); ++f) {
    if (layer_.layer().fields()[f].name == "Z") return;  // has its own rank of 1; covered by the other kinds
    if (layer_.layer().fields()[f].name != "H") continue;  // a second matrix of the state
    const Index key = GetParam().rows, elements = key * round_up(key, 32);
    for (Index h = 0; h < 2; ++h)
      truncate({by_hand.anchor(static_cast<Index>(f)) + h * elements, key, key}, 2);
  }
  EXPECT_TRUE(same_bits(feed(layer_.layer(), edited, input_, kChunk, 60, nullptr),
                        feed(layer_.layer(), by_hand, input_, kChunk, 60, nullptr)));
}

// every: token is the layer with chunks of one token, edited at each: two roundings of one definition. A
// reduction of rank multiplies a rounding error by the ratio of neighbouring singular values' sizes to their
// gap, hence the factor.
TEST_P(StateEdits, EveryTokenIsAGridOfOne) {
  const Subject& s = GetParam();
  const auto sites = layer_.layer().sites();
  const auto state_site =
      std::find_if(sites.begin(), sites.end(), [](const SiteSpec& x) { return x.site == Site::state; });
  if (state_site->finest != Every::token) {
    EXPECT_THROW(check(state_edit(Operator::rank, Every::token, 3), *state_site), Error);
    return;
  }
  const OneKind fine(s.kind, s.settings, surroundings(1),
                     OneKind::random_values(s.kind, s.settings, surroundings(), 5));
  for (const Edit& by_token :
       {state_edit(Operator::noise, Every::token, 0.05), state_edit(Operator::rank, Every::token, 3)}) {
    Edit by_chunk = by_token;
    by_chunk.every = Every::chunk;
    State coarse(layer_.layer().fields()), one(fine.layer().fields());
    const std::vector<float> a = feed(layer_.layer(), coarse, input_, 0, 60, &by_token);
    const std::vector<float> b = feed(fine.layer(), one, input_, 0, 60, &by_chunk);
    expect_near(a, testing::widen(b), 64, 60 * 24);
  }
}

// The state of another stream in place of the own: from there on the runs are the same.
TEST_P(StateEdits, SwapGoesOnAsTheOther) {
  const Layer& layer = layer_.layer();
  const KindInput other = testing::random_input(60, kWidth, 8);
  for (const Index at : {kChunk, kChunk + 5}) {
    State source(layer.fields()), state(layer.fields());
    feed(layer, source, other, 0, at, nullptr);
    feed(layer, state, input_, 0, at, nullptr);
    state.restore(source.image());
    EXPECT_TRUE(state.equal(source));
    EXPECT_TRUE(
        same_bits(feed(layer, state, input_, at, 60, nullptr), feed(layer, source, input_, at, 60, nullptr)));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, StateEdits, ::testing::ValuesIn(subjects()),
                         [](const ::testing::TestParamInfo<Subject>& subject) {
                           return std::string(subject.param.kind);
                         });

}  // namespace
}  // namespace plait
