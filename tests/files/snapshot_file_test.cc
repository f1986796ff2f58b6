// Snapshots: a stream saved and loaded goes on with the same bits; anything else is refused.
#include "weights/snapshot_file.h"

#include <gtest/gtest.h>

#include "tests/files.h"
#include "tests/testing.h"
#include "weights/model_file.h"

namespace plait {
namespace {

using testing::Folder;
using testing::sentence;

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << "says: " << (text)

// Every kind of field, by hand, with holes in the log.
Snapshot every_field() {
  Snapshot s;
  s.model_name = "a \"name\"";
  s.model_identity = std::string(64, 'a');
  s.arithmetic = {{"mode", "exact"}, {"chunk", 32}};
  s.edits = Json::array({{{"where", "blocks.3"}}});
  s.sampler = nullptr;
  s.id = ~std::uint64_t{0} - 5;
  for (Token t = 0; t < 40; ++t) s.tokens.push_back(t * 3);
  s.sampled = {{3, 5}, {30, 40}};
  s.logits = {1.5f, -0.0f, 3e-40f};
  const auto bytes = [](std::size_t n, int first) {
    std::vector<std::byte> all(n);
    for (std::size_t i = 0; i < n; ++i) all[i] = static_cast<std::byte>(first + static_cast<int>(i) * 7);
    return all;
  };
  using Kind = Field::Kind;
  const std::vector<Field> fields = {
      {.name = "S", .kind = Kind::anchor, .shape = {2, 3}, .grid = 32},
      {.name = "k", .kind = Kind::open, .shape = {3}, .order = Field::Order::columns, .grid = 32},
      {.name = "g", .kind = Kind::open, .shape = {2}, .dtype = DType::f64, .grid = 32},
      {.name = "conv", .kind = Kind::running, .shape = {5}},
      {.name = "keys", .kind = Kind::log, .shape = {2}, .window = 16, .sinks = 2},
      {.name = "narrow", .kind = Kind::log, .shape = {3}, .dtype = DType::bf16}};
  State::Image image;
  image.position = 40;
  const auto item = [&](const char* name, std::vector<std::byte> values) {
    State::Image::Item one;
    one.name = name;
    one.bytes = std::move(values);
    return one;
  };
  image.items = {item("S", bytes(24, 1)),
                 item("k", bytes(8 * 3 * 4, 2)),
                 item("g", bytes(8 * 2 * 8, 3)),
                 item("conv", bytes(20, 4)),
                 item("keys", {}),
                 item("narrow", {})};
  image.items[4].log_end = 40;
  image.items[4].present = {{0, 10}, {12, 40}};
  image.items[4].pieces = {{{0, 2}, bytes(16, 5)}, {{25, 40}, bytes(15 * 8, 6)}};
  image.items[5].log_end = 40;
  image.items[5].present = {{35, 40}};
  image.items[5].pieces = {{{35, 40}, bytes(5 * 6, 7)}};
  s.states = {{"blocks.10.mixer", fields, image}, {"blocks.2.mixer", {}, {}}};
  return s;
}

void expect_same(const Snapshot& a, const Snapshot& b) {
  EXPECT_EQ(a.model_name, b.model_name);
  EXPECT_EQ(a.model_identity, b.model_identity);
  EXPECT_EQ(a.arithmetic, b.arithmetic);
  EXPECT_EQ(a.edits, b.edits);
  EXPECT_EQ(a.sampler, b.sampler);
  EXPECT_EQ(a.id, b.id);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.sampled, b.sampled);
  EXPECT_TRUE(a.logits.empty() ? b.logits.empty() : testing::same_bits(a.logits, b.logits));
  ASSERT_EQ(a.states.size(), b.states.size());
  for (std::size_t n = 0; n < a.states.size(); ++n) {
    const auto &x = a.states[n], &y = b.states[n];
    EXPECT_EQ(x.node, y.node);
    EXPECT_EQ(x.image.position, y.image.position);
    ASSERT_EQ(x.fields.size(), y.fields.size());
    ASSERT_EQ(x.image.items.size(), y.image.items.size());
    for (std::size_t i = 0; i < x.fields.size(); ++i) {
      const Field &f = x.fields[i], &g = y.fields[i];
      EXPECT_EQ(std::tie(f.name, f.kind, f.shape, f.dtype, f.order, f.grid, f.window, f.sinks),
                std::tie(g.name, g.kind, g.shape, g.dtype, g.order, g.grid, g.window, g.sinks));
      const auto &p = x.image.items[i], &q = y.image.items[i];
      EXPECT_EQ(std::tie(p.name, p.bytes, p.log_end, p.present),
                std::tie(q.name, q.bytes, q.log_end, q.present));
      ASSERT_EQ(p.pieces.size(), q.pieces.size());
      for (std::size_t k = 0; k < p.pieces.size(); ++k)
        EXPECT_EQ(std::tie(p.pieces[k].range, p.pieces[k].rows),
                  std::tie(q.pieces[k].range, q.pieces[k].rows));
    }
  }
}

TEST(SnapshotFile, KeepsEverything) {
  const Folder folder;
  save_snapshot(folder / "s.h5", every_field());
  expect_same(every_field(), load_snapshot(folder / "s.h5"));
  save_snapshot(folder / "empty.h5", Snapshot{});
  expect_same(Snapshot{}, load_snapshot(folder / "empty.h5"));
  save_snapshot(folder / "again.h5", every_field());
  EXPECT_EQ(testing::read_bytes(folder / "s.h5"), testing::read_bytes(folder / "again.h5"));
}

// One layer of every group of state: windowed log, anchors with open rows, running values.
std::vector<Json> cards() {
  return {
      testing::card_of_kind("softmax_attention",
                            {{"num_heads", 2}, {"head_dim", 32}, {"window", 24}, {"sinks", 2}}),
      testing::card_of_kind("gated_delta_net", {{"num_heads", 2}, {"head_dim", 32}, {"value_head_dim", 32}}),
      testing::card_of_kind("mamba2", {{"num_heads", 4}, {"head_dim", 16}, {"state_dim", 16}})};
}

TEST(SnapshotFile, AStreamGoesOnWithTheSameBits) {
  const Folder folder;
  for (const Json& card : cards()) {
    const auto model = testing::random_model(card, 11);
    const std::vector<Token> tokens = testing::Numbers(3).tokens(150, 97);
    const std::span<const Token> all(tokens);
    for (const std::size_t cut : {1u, 31u, 32u, 75u, 128u}) {
      Stream stream(model);
      stream.feed(all.first(cut));
      save_snapshot(folder / "s.h5", stream.snapshot());
      Stream back = Stream::restore(model, load_snapshot(folder / "s.h5"));
      EXPECT_TRUE(testing::same_bits(back.logits(), stream.logits()));
      EXPECT_EQ(back.state_digest(), stream.state_digest());
      EXPECT_TRUE(testing::same_bits(back.feed(all.subspan(cut)), stream.feed(all.subspan(cut))))
          << card["name"] << cut;
    }
  }
}

// What a state remembers for stale reads is in the file too.
TEST(SnapshotFile, StaleReadsGoOn) {
  const Folder folder;
  for (const Json& card : {cards()[1], cards()[2]}) {
    const auto model = testing::random_model(card, 11);
    const std::vector<Token> tokens = testing::Numbers(3).tokens(150, 97);
    const std::span<const Token> all(tokens);
    StreamOptions options;
    for (const Node& node : model->graph().nodes)
      if (node.kind == "gated_delta_net" || node.kind == "mamba2")
        options.edits = parse_edits(
            Json::array({{{"where", node.name + "/state"}, {"operator", "stale"}, {"value", 45}}}));
    ASSERT_EQ(options.edits.size(), 1u);
    for (const std::size_t cut : {1u, 32u, 75u, 128u}) {
      Stream stream(model, options);
      stream.feed(all.first(cut));
      save_snapshot(folder / "s.h5", stream.snapshot());
      Stream back = Stream::restore(model, load_snapshot(folder / "s.h5"), options);
      EXPECT_EQ(back.state_digest(), stream.state_digest());
      EXPECT_TRUE(testing::same_bits(back.feed(all.subspan(cut)), stream.feed(all.subspan(cut)))) << cut;
    }
  }
}

TEST(SnapshotFile, OtherModelsAreRefused) {
  const Folder folder;
  const auto model = testing::random_model(cards()[0], 1), other = testing::random_model(cards()[0], 2);
  Stream stream(model);
  stream.feed({1, 2, 3});
  save_snapshot(folder / "s.h5", stream.snapshot());
  const std::string text = sentence([&] { Stream::restore(other, load_snapshot(folder / "s.h5")); });
  EXPECT_SAYS(text, "identity");
  // The same tensors under a card that says something else.
  ModelData changed = testing::random_data(cards()[0], 1);
  changed.card["graph"][1]["eps"] = 0.5;
  const auto same_tensors = std::make_shared<const Model>(std::move(changed));
  ASSERT_EQ(same_tensors->digest(), model->digest());
  EXPECT_SAYS(sentence([&] { Stream::restore(same_tensors, load_snapshot(folder / "s.h5")); }), "identity");
}

TEST(SnapshotFile, EveryChangedByteIsFound) {
  const Folder folder;
  Snapshot small;
  small.model_name = "m";
  small.tokens = {1, 2, 3};
  save_snapshot(folder / "s.h5", small);
  const std::string path = folder / "bent.h5", bytes = testing::read_bytes(folder / "s.h5");
  testing::Numbers numbers(5);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string bent = bytes;
    bent[at] = static_cast<char>(bent[at] ^ static_cast<char>(1 + numbers.bits() % 255));
    testing::write_bytes(path, bent);
    const std::string text = sentence([&] { load_snapshot(path); });
    ASSERT_NE(text.find(path), std::string::npos) << "byte " << at << " of " << bytes.size();
  }
}

TEST(SnapshotFile, EveryTruncationIsFound) {
  const Folder folder;
  save_snapshot(folder / "s.h5", Snapshot{});
  const std::string path = folder / "cut.h5", bytes = testing::read_bytes(folder / "s.h5");
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    testing::write_bytes(path, bytes.substr(0, length));
    const std::string text = sentence([&] { load_snapshot(path); });
    ASSERT_NE(text.find("not a plait snapshot"), std::string::npos) << length;
  }
  testing::write_bytes(path, bytes + "x");
  EXPECT_SAYS(sentence([&] { load_snapshot(path); }), "not a plait snapshot");
}

// A trailer proves that the file is whole, not that its contents make sense: what the reader checks itself.
TEST(SnapshotFile, ContentsThatContradictThemselvesAreRefused) {
  const Folder folder;
  const std::string path = folder / "s.h5";
  const auto spoiled = [&](const std::function<void(Snapshot&)>& spoil) {
    Snapshot s = every_field();
    spoil(s);
    return sentence([&] {
      save_snapshot(path, s);
      load_snapshot(path);
    });
  };
  EXPECT_EQ(spoiled([](Snapshot&) {}), "");
  EXPECT_SAYS(spoiled([](Snapshot& s) { s.sampled = {{5, 3}}; }), "[5, 3)");
  EXPECT_SAYS(spoiled([](Snapshot& s) { s.sampled = {{0, 41}}; }), "[0, 41)");
  EXPECT_SAYS(spoiled([](Snapshot& s) {
                s.states[0].image.items[4].present = {{0, 10}, {5, 40}};
              }),
              "[5, 40)");
  EXPECT_SAYS(spoiled([](Snapshot& s) { s.states[0].image.items[4].pieces[0].range = {0, 3}; }), "pieces");
  EXPECT_SAYS(spoiled([](Snapshot& s) { s.states[0].image.items[0].bytes.pop_back(); }), "'S'");
  EXPECT_SAYS(spoiled([](Snapshot& s) { s.model_name.assign(1, char(0xff)); }), "UTF-8");
}

TEST(SnapshotFile, AModelIsNoSnapshotAndTheOtherWayRound) {
  const Folder folder;
  testing::write_model(folder / "m.h5", testing::random_data(testing::small_card(), 1));
  save_snapshot(folder / "s.h5", Snapshot{});
  EXPECT_SAYS(sentence([&] { load_snapshot(folder / "m.h5"); }), "not a plait snapshot");
  EXPECT_SAYS(sentence([&] { load(folder / "s.h5"); }), "is a plait snapshot");
}

}  // namespace
}  // namespace plait
