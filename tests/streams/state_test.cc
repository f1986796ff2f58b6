// Fields, logs, forks, holes and rollbacks of State, without any layer.
#include "runtime/run/state.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "runtime/base/error.h"

namespace plait {
namespace {

constexpr Index kGrid = 8;

std::vector<Field> fields() {
  return {
      {.name = "S",
       .kind = Field::Kind::anchor,
       .shape = {2, 3},
       .grid = kGrid,
       .initial = {1, 2, 3, 4, 5, 6}},
      {.name = "x", .kind = Field::Kind::open, .shape = {3}, .grid = kGrid},
      {.name = "k", .kind = Field::Kind::open, .shape = {3}, .order = Field::Order::columns, .grid = kGrid},
      {.name = "log", .kind = Field::Kind::log, .shape = {5}},
      {.name = "conv", .kind = Field::Kind::log, .shape = {5}, .window = 4},
      {.name = "keys",
       .kind = Field::Kind::log,
       .shape = {5},
       .order = Field::Order::columns,
       .window = 100,
       .sinks = 3}};
}

// Appends one token the way a layer would: anchors sum the open rows at the boundary.
void step(State& state, float value) {
  const Index p = state.position();
  std::vector<float> row(5);
  std::iota(row.begin(), row.end(), value);
  for (Index c = 0; c < 3; ++c) {
    state.open(1)[p % kGrid * 3 + c] = row[static_cast<std::size_t>(c)];
    state.open(2)[c * 32 + p % kGrid] = row[static_cast<std::size_t>(c)];
  }
  for (Index log : {3, 4, 5}) state.log(log).append(p, View<const float>(row.data(), 1, 5));
  if (p % kGrid == kGrid - 1) {
    state.before_fold(p + 1, p + 1);
    for (Index i = 0; i < 6; ++i)
      for (Index r = 0; r < kGrid; ++r) state.anchor(0)[i] += state.peek(1)[r * 3 + i % 3];
  }
  state.advance(p + 1);
}

State at(Index position, Index depth = 0) {
  State state(fields(), depth);
  for (Index p = 0; p < position; ++p) step(state, static_cast<float>(p));
  return state;
}

TEST(State, IsBornFromItsInitialValues) {
  const State state(fields());
  EXPECT_EQ(state.position(), 0);
  EXPECT_EQ(state.grid(), kGrid);
  EXPECT_EQ(state.peek(0)[5], 6);
}

TEST(State, CopyIsAFork) {
  State original = at(70);
  const std::string before = original.digest();
  State fork = original;
  EXPECT_TRUE(fork.equal(original));
  for (int i = 0; i < 20; ++i) step(fork, 1000);
  EXPECT_EQ(original.digest(), before);
  EXPECT_FALSE(fork.equal(original));
  for (Index p = 70; p < 90; ++p) step(original, static_cast<float>(p));
  EXPECT_TRUE(original.equal(at(90)));
}

TEST(State, ForksSharePages) {
  State state = at(640);
  State fork = state;
  EXPECT_EQ(state.log(3).page(0), fork.log(3).page(0));
  step(fork, 0);
  EXPECT_EQ(state.log(3).page(0), fork.log(3).page(0)) << "a full page stays shared";
}

TEST(State, RollbackWithinDepthEqualsNeverHavingRun) {
  for (Index depth : {1, 5, 8, 20})
    for (Index end : {9, 16, 17, 40, 130})
      for (Index back = 0; back <= std::min(depth, end); ++back) {
        State state = at(end, depth);
        ASSERT_TRUE(state.can_rollback(back)) << depth << " " << end << " " << back;
        state.rollback(back);
        EXPECT_TRUE(state.equal(at(end - back))) << depth << " " << end << " " << back;
        for (Index p = end - back; p < end + 11; ++p) step(state, static_cast<float>(p));
        EXPECT_TRUE(state.equal(at(end + 11))) << depth << " " << end << " " << back;
      }
}

TEST(State, RollbackBeyondWhatIsKeptIsNotPossible) {
  EXPECT_FALSE(at(40, 4).can_rollback(12));
  EXPECT_FALSE(at(40).can_rollback(1)) << "40 is a boundary, the chunk before it is folded";
  State state = at(45);
  EXPECT_FALSE(state.can_rollback(6));
}

TEST(State, WindowedLogsDropPagesAndKeepSinks) {
  const State state = at(1000);
  EXPECT_EQ(state.log(3).page(0)[0], 0);
  EXPECT_EQ(state.log(4).page(0), nullptr);
  EXPECT_NE(state.log(4).page(999), nullptr);
  ASSERT_NE(state.log(5).page(0), nullptr) << "sinks stay";
  EXPECT_EQ(state.log(5).page(2)[2], 2);
  EXPECT_EQ(state.log(5).page(500), nullptr);
  EXPECT_LT(state.log(4).bytes(), 5u * 4 * 16);
}

TEST(State, HolesAreNeutralRowsAndHiddenFromLogs) {
  State state = at(10);
  EXPECT_EQ(state.fill_hole(13), 13);
  EXPECT_EQ(state.peek(1)[12 % kGrid * 3], 0);
  EXPECT_EQ(state.fill_hole(30), 16) << "stops at the boundary, where the layer folds";
  EXPECT_EQ(state.fill_hole(17), 17);
  step(state, 17);
  EXPECT_EQ(state.log(3).present(), (std::vector<Log::Range>{{0, 10}, {17, 18}}));
  EXPECT_EQ(state.log(3).row(12)[0], 0);
}

TEST(State, ResetForgetsEverythingBefore) {
  State state = at(21);
  state.reset_before(21, State::Logs::hide);
  EXPECT_EQ(state.peek(0)[0], 1);
  EXPECT_EQ(state.peek(1)[20 % kGrid * 3], 0);
  EXPECT_TRUE(state.log(3).present().empty());
  EXPECT_FALSE(state.can_rollback(1));
  EXPECT_TRUE(state.can_rollback(0));
}

TEST(State, ImageRestores) {
  for (Index p : {0, 5, 8, 64, 65, 300}) {
    const State state = at(p, 3);
    State restored(fields(), 3);
    restored.restore(state.image());
    EXPECT_TRUE(restored.equal(state)) << p;
    for (Index q = p; q < p + 90; ++q) step(restored, static_cast<float>(q));
    EXPECT_TRUE(restored.equal(at(p + 90))) << p;
  }
}

TEST(State, ARestoreFarIntoAStreamTakesNoMemoryForTheGap) {
  State::Image image = State(fields()).image();
  const Index far = Index{1} << 40;
  image.position = far;
  for (auto& item : image.items)
    if (item.name == "conv" || item.name == "keys") {
      item.log_end = far;
      item.present = {{far - 2, far}};
      item.pieces = {{{far - 2, far}, std::vector<std::byte>(2 * 5 * sizeof(float))}};
    }
  State state(fields());
  state.restore(image);
  EXPECT_LT(state.bytes(), 100000u);
}

TEST(State, DamagedImagesAreRefused) {
  const State state = at(70);
  const auto refused = [&](auto damage) {
    State::Image image = state.image();
    damage(image);
    State other(fields());
    EXPECT_THROW(other.restore(image), Error);
  };
  refused([](auto& i) { i.items.pop_back(); });
  refused([](auto& i) { i.items[0].name = "T"; });
  refused([](auto& i) { i.items[0].bytes.pop_back(); });
  refused([](auto& i) { i.items[1].bytes.resize(1); });
  refused([](auto& i) { i.position = -1; });
  refused([](auto& i) { i.items[3].pieces[0].rows.pop_back(); });
  refused([](auto& i) { i.items[3].pieces.clear(); });
  refused([](auto& i) { i.items[3].present[0].end = 1000; });
  refused([](auto& i) { i.items[3].log_end = std::numeric_limits<Index>::max(); });
  refused([](auto& i) {
    i.items[3].log_end = -1;
    i.items[3].present.clear();
    i.items[3].pieces.clear();
  });
  // One row fewer than it shows, on a page that is there.
  refused([](auto& i) {
    auto& piece = i.items[3].pieces[0];
    --piece.range.end;
    piece.rows.resize(piece.rows.size() - 5 * sizeof(float));
  });
  refused([](auto& i) {
    auto& piece = i.items[3].pieces[0];
    ++piece.range.begin;
    piece.rows.resize(piece.rows.size() - 5 * sizeof(float));
  });
  // Rows whose pages would lie years apart.
  refused([](auto& i) {
    auto& log = i.items[3];
    i.position = log.log_end = Index{1} << 52;
    i.items[1].bytes.clear();
    i.items[2].bytes.clear();
    log.present = {{0, 70}, {log.log_end - 1, log.log_end}};
    log.pieces.push_back({log.present[1], std::vector<std::byte>(5 * sizeof(float))});
  });
}

}  // namespace
}  // namespace plait
