// state/stale: rows read the state of earlier tokens, while what is written goes on as ever.
#include <gtest/gtest.h>

#include <array>

#include "runtime/base/error.h"
#include "runtime/run/edit_plan.h"
#include "runtime/run/stream.h"
#include "tests/identities/recurrent_rows.h"

namespace plait {
namespace {

using namespace testing;

RecurrentRows shape(std::array<Index, 3> heads, Index key, Index value, Index channels) {
  RecurrentRows r;
  r.rows = 100;
  r.query_heads = heads[0];
  r.key_heads = heads[1];
  r.state_heads = heads[2];
  r.key = key;
  r.value = value;
  r.channels = channels;
  return r;
}

// By definition: at token t the loop's state after token t - back is read with t's query. What a state reads
// is linear in the query and the loop never looks at it, so the reads of the states after each token are the
// outputs of the loop over the first tokens, fed with the later query in the last place.
std::vector<double> stale_loop(const RecurrentRows& r, Index back) {
  const Index width = r.outputs() * r.value, queries = r.query_heads * r.key;
  std::vector<double> o(static_cast<std::size_t>(r.rows * width));
  for (Index t = back; t < r.rows; ++t) {
    RecurrentRows until = r;
    until.rows = t - back + 1;
    std::copy_n(r.q.begin() + t * queries, queries, until.q.begin() + (t - back) * queries);
    const std::vector<double> all = loop(until);
    std::copy_n(all.begin() + (t - back) * width, width, o.begin() + t * width);
  }
  return o;
}

Edit stale(double back, std::vector<Index> heads = {}) {
  Edit edit;
  edit.node = "tested";
  edit.site = Site::state;
  edit.op = Operator::stale;
  edit.value = back;
  edit.heads = std::move(heads);
  return edit;
}

// Feeds rows [state.position(), r.rows) to a core under an edit. [the rows, outputs * value]
template <class Core>
std::vector<float> feed(const Core& core, const RecurrentRows& r, State& state, const Edit& edit,
                        const std::vector<Index>& split) {
  const Index width = r.outputs() * r.value;
  std::vector<float> o(static_cast<std::size_t>(r.rows * width), std::nanf(""));
  const auto rows = rows_for(core, r, View<float>(o.data(), r.rows, width));
  Edits edits;
  edits.add(&edit);
  const Index start = state.position();
  for (Index at = start, call = 0; at < r.rows; ++call) {
    const Index count = std::min(split[static_cast<std::size_t>(call) % split.size()], r.rows - at);
    const Segment segment{&state, at, at, count, &edits};
    core.run(rows, {&segment, 1}, {});
    at += count;
    state.advance(at);
  }
  return {o.begin() + start * width, o.end()};
}

template <class Core>
State fresh(const Core& core, Index back) {
  const std::vector<Field> fields = core.fields();
  State state(fields);
  state.remember({back, -back, -1});
  return state;
}

template <class MakeCore>
void expect_stale_reads(const RecurrentRows& r, MakeCore&& make) {
  for (const Index back : {1, 7, 16, 45, 200}) {
    const std::vector<double> expected = stale_loop(r, back);
    for (const Index chunk : {1, 16, 24}) {
      SCOPED_TRACE(std::to_string(back) + " back, chunk " + std::to_string(chunk));
      const auto core = make(r, chunk);
      State whole = fresh(core, back);
      const std::vector<float> o = feed(core, r, whole, stale(static_cast<double>(back)), {r.rows});
      if (back < r.rows)
        expect_near(o, expected, 4, static_cast<double>(r.key + r.rows));
      else
        for (const float x : o) EXPECT_EQ(x, 0);
      for (const std::vector<Index>& split : kSplits) {
        State state = fresh(core, back);
        EXPECT_TRUE(same_bits(feed(core, r, state, stale(static_cast<double>(back)), split), o)) << split[0];
        EXPECT_TRUE(state.equal(whole)) << split[0];
        EXPECT_EQ(state.digest(), whole.digest()) << split[0];
      }
    }
  }
}

// The bound is that of the reads without an edit (decayed_sum_test, delta_test): the same sums, ending
// earlier.
TEST(StaleReads, AreThoseOfTheRecurrence) {
  expect_stale_reads(random_rows(shape({2, 2, 4}, 24, 40, 1), 1), delta_core);
  expect_stale_reads(random_rows(shape({1, 1, 2}, 40, 24, 0), 2), delta_core);
  for (const auto& [heads, channels] : std::vector<std::pair<std::array<Index, 3>, Index>>{
           {{4, 2, 2}, 0}, {{2, 2, 4}, 1}, {{1, 1, 3}, 1}, {{4, 2, 2}, 24}}) {
    RecurrentRows r = random_rows(shape(heads, 24, 40, channels), 3);
    std::fill(r.erase.begin(), r.erase.end(), 0.0f);
    expect_stale_reads(r, sum_core);
  }
}

// No token back is no edit, bit for bit; other heads than those in scope are left alone; the state the reads
// leave behind is the plain one.
template <class MakeCore>
void expect_scope(const RecurrentRows& r, MakeCore&& make) {
  const auto core = make(r, 16);
  const std::vector<float> plain = through(core, r);
  State state = fresh(core, 0);
  EXPECT_TRUE(same_bits(feed(core, r, state, stale(0), {13}), plain));
  State one = fresh(core, 20), all = fresh(core, 20);
  const std::vector<float> first = feed(core, r, one, stale(20, {0}), {13}),
                           every = feed(core, r, all, stale(20), {13});
  for (Index t = 0; t < r.rows; ++t)
    for (Index c = 0; c < r.outputs() * r.value; ++c) {
      const auto i = static_cast<std::size_t>(t * r.outputs() * r.value + c);
      EXPECT_EQ(first[i], c < r.value ? every[i] : plain[i]);
    }
  one.remember({});
  EXPECT_TRUE(one.equal(state));
}

TEST(StaleReads, KeepToTheirScope) {
  expect_scope(random_rows(shape({2, 2, 4}, 24, 40, 1), 4), delta_core);
  expect_scope(random_rows(shape({4, 2, 2}, 24, 40, 0), 5), sum_core);
  expect_scope(random_rows(shape({2, 2, 4}, 24, 40, 1), 6), sum_core);
  expect_scope(random_rows(shape({4, 2, 2}, 24, 40, 24), 7), sum_core);
}

// ceil(n / C) past chunks beside the current one, whatever the length of the run; none before and after.
TEST(StaleReads, RememberNoMoreThanTheyRead) {
  const RecurrentRows r = random_rows(shape({2, 2, 2}, 24, 40, 1), 8);
  const Delta core = delta_core(r, 16);
  const std::size_t plain = fresh(core, 0).bytes();
  for (const Index back : {1, 16, 17, 40}) {
    State state = fresh(core, back);
    for (const Index split : {1, 100}) {
      state = fresh(core, back);
      feed(core, r, state, stale(static_cast<double>(back)), {split});
      const Index chunks = 100 / 16 - (100 - back) / 16;
      EXPECT_EQ(state.bytes(), plain * static_cast<std::size_t>(1 + chunks)) << back;
      EXPECT_LE(chunks, ceil_div(back, Index{16}));
    }
    state.remember({back, 300 - back, -1});
    EXPECT_EQ(state.bytes(), plain) << "before the range";
  }
  State ended = fresh(core, 40);
  ended.remember({40, 10, 90});
  feed(core, r, ended, stale(40), {100});
  EXPECT_EQ(ended.bytes(), plain) << "after the range";
}

// A reset ends the past: from there on the reads are those of a sequence that begins at it.
TEST(StaleReads, AResetLeavesNoPast) {
  RecurrentRows r = random_rows(shape({2, 2, 2}, 24, 40, 1), 9), rest = r;
  const Delta core = delta_core(r, 16);
  constexpr Index kAt = 32;
  const auto drop = [&](std::vector<float>& x) {
    x.erase(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size()) / r.rows * kAt);
  };
  for (auto* x : {&rest.q, &rest.k, &rest.v, &rest.g, &rest.erase, &rest.write}) drop(*x);
  rest.rows -= kAt;
  State state = fresh(core, 20), begun = fresh(core, 20);
  RecurrentRows before = r;
  before.rows = kAt;
  feed(core, before, state, stale(20), {kAt});
  state.reset_before(kAt, State::Logs::keep);
  EXPECT_TRUE(same_bits(feed(core, r, state, stale(20), {9}), feed(core, rest, begun, stale(20), {11})));
}

// What a state remembers is saved with it, and a state that lacks it is refused.
TEST(StaleReads, AreSavedAndRestored) {
  const RecurrentRows r = random_rows(shape({2, 2, 4}, 24, 40, 1), 10);
  RecurrentRows before = r;
  before.rows = 70;
  const DecayedSum core = sum_core(r, 16);
  State state = fresh(core, 40), plain = fresh(core, 0);
  feed(core, before, state, stale(40), {70});
  feed(core, before, plain, stale(0), {70});
  const State::Image image = state.image();
  EXPECT_EQ(image.items.size(), core.fields().size() * 4);  // the chunks that end at 32, 48, 64
  EXPECT_EQ(image.items.size(), state.saved_fields().size());
  State back = fresh(core, 40);
  back.restore(image);
  EXPECT_TRUE(back.equal(state));
  EXPECT_TRUE(same_bits(feed(core, r, back, stale(40), {7}), feed(core, r, state, stale(40), {30})));
  EXPECT_FALSE(plain.equal(state));
  EXPECT_THROW(back.restore(plain.image()), Error);
  EXPECT_THROW(plain.restore(image), Error);
}

std::string refusal(const Model& model, const Json& edits) {
  try {
    EditPlan(model, parse_edits(edits));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(StaleReads, AreRefusedWhereThereIsNoEarlierState) {
  const auto model = random_model(card_of_kind("gated_delta_net", {{"num_heads", 2}, {"head_dim", 24}}), 3);
  std::string node;
  for (const Node& n : model->graph().nodes)
    if (n.kind == "gated_delta_net") node = n.name;
  const Json stale = {{"where", node + "/state"}, {"operator", "stale"}, {"value", 5}};
  const auto with = [&](Json other) {
    other["where"] = node + "/state";
    return refusal(*model, Json::array({stale, other}));
  };
  EXPECT_EQ(refusal(*model, Json::array({stale})), "");
  EXPECT_EQ(with({{"operator", "rank"}, {"value", 3}, {"every", "chunk"}}), "");
  EXPECT_NE(with({{"operator", "rank"}, {"value", 3}, {"every", "token"}}).find("state/rank every token"),
            std::string::npos);
  for (const double value : {-1.0, 2.5, 1e300}) {
    Json edit = stale;
    edit["value"] = value;
    EXPECT_NE(refusal(*model, Json::array({edit})).find("whole 'value'"), std::string::npos) << value;
    edit["value"] = 1;
    edit["values"] = {3, value};
    EXPECT_NE(refusal(*model, Json::array({edit})).find("whole 'value'"), std::string::npos) << value;
  }
  // Between the rows of a mini-batch there is no state.
  const auto trained = random_model(card_of_kind("ttt_linear", {{"num_heads", 2}, {"head_dim", 24}}), 3);
  for (const Node& n : trained->graph().nodes) {
    if (n.kind != "ttt_linear") continue;
    const Json edit = {{"where", n.name + "/state"}, {"operator", "stale"}, {"value", 5}};
    EXPECT_NE(refusal(*trained, Json::array({edit})).find("has no state/stale"), std::string::npos);
  }
}

}  // namespace
}  // namespace plait
