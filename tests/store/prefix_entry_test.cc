// Entries of a prefix store as bytes: everything comes back, and nothing that was cut, changed or made up
// gets through.
#include "weights/prefix_entry.h"

#include <gtest/gtest.h>

#include <functional>

#include "runtime/base/digest.h"
#include "tests/files.h"
#include "tests/testing.h"
#include "weights/trailer.h"

namespace plait {
namespace {

using testing::sentence;

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << "says: " << (text)

std::vector<std::byte> bytes(std::size_t count, int first) {
  std::vector<std::byte> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = static_cast<std::byte>(first + static_cast<int>(i) * 7);
  return all;
}

// A value, a log without a hole, and one whose window begins in the entry before. Rows have 8 bytes.
PrefixEntry entry_at(Index base, Index position) {
  PrefixEntry entry;
  entry.owner = {std::string(64, 'a'), {{"mode", "exact"}}, Json::array(), 4, "scores"};
  entry.model_name = "a \"name\"";
  entry.base = base;
  entry.position = position;
  if (base > 0) entry.parent = std::string(64, 'b');
  for (Index t = base; t < position; ++t) entry.tokens.push_back(static_cast<Token>(3 * t));
  entry.logits = {1.5f, -0.0f, 3e-40f};
  entry.notes = std::string("n\0te", 4);
  Snapshot::NodeState state{"blocks.0.mixer", {}, {}};
  state.image.position = position;
  state.image.items.resize(3);
  state.image.items[0].name = "S";
  state.image.items[0].bytes = bytes(12, static_cast<int>(position));
  const auto log = [&](State::Image::Item& item, const char* name, Index from) {
    item.name = name;
    item.log_end = position;
    item.present = {{0, position}};
    if (from < base) item.pieces.push_back({{from, base}, {}});
    from = std::max(from, base);
    item.pieces.push_back({{from, position}, bytes(static_cast<std::size_t>(position - from) * 8, 9)});
  };
  log(state.image.items[1], "k", 0);
  log(state.image.items[2], "window", position - 3);
  entry.states = {state};
  return entry;
}

void expect_same(const PrefixEntry& a, const PrefixEntry& b) {
  EXPECT_EQ(a.owner.json(), b.owner.json());
  EXPECT_EQ(std::tie(a.model_name, a.parent, a.base, a.position, a.tokens, a.notes),
            std::tie(b.model_name, b.parent, b.base, b.position, b.tokens, b.notes));
  EXPECT_TRUE(testing::same_bits(a.logits, b.logits));
  EXPECT_EQ(pack(a).bytes, pack(b).bytes);
}

// Any contents under a trailer that fits them: what the reader has to find out itself.
std::string sealed(const std::string& contents) {
  const Trailer trailer = make_trailer(contents.size(), sha256(contents));
  return contents + std::string(reinterpret_cast<const char*>(&trailer), sizeof trailer);
}

// With its header changed.
std::string with_header(const PrefixEntry& entry, const std::function<void(Json&)>& change) {
  const std::string packed = pack(entry).bytes;
  std::uint64_t length = 0;
  std::memcpy(&length, packed.data() + 8, sizeof length);
  Json header = Json::parse(packed.substr(16, length));
  change(header);
  const std::string text = header.dump();
  const std::uint64_t now = text.size();
  return sealed(packed.substr(0, 8) + std::string(reinterpret_cast<const char*>(&now), sizeof now) + text +
                packed.substr(16 + length, packed.size() - 16 - length - sizeof(Trailer)));
}

TEST(PrefixEntry, KeepsEverything) {
  for (const PrefixEntry& entry : {entry_at(0, 4), entry_at(4, 8), entry_at(8, 10)}) {
    const PackedEntry packed = pack(entry);
    EXPECT_EQ(packed.hash, sha256(std::string_view(packed.bytes).substr(0, packed.bytes.size() - 64)));
    expect_same(entry, unpack(packed.bytes, packed.hash, "x"));
  }
}

TEST(PrefixEntry, EveryChangedByteAndEveryTruncationIsFound) {
  const PackedEntry packed = pack(entry_at(4, 8));
  for (std::size_t at = 0; at < packed.bytes.size(); ++at)
    for (const int change : {1, 0x80, 0xff}) {
      std::string bent = packed.bytes;
      bent[at] = static_cast<char>(bent[at] ^ change);
      const std::string text = sentence([&] { unpack(bent, "", "file 'x'"); });
      ASSERT_EQ(text.find("file 'x' is "), 0u) << "byte " << at << ": " << text;
    }
  for (std::size_t length = 0; length < packed.bytes.size(); ++length)
    ASSERT_NE(sentence([&] { unpack(std::string_view(packed.bytes).substr(0, length), "", "x"); }), "")
        << length;
  EXPECT_SAYS(sentence([&] { unpack(packed.bytes + "x", "", "x"); }), "damaged");
  EXPECT_SAYS(sentence([&] { unpack(packed.bytes, std::string(64, '0'), "x"); }), "another entry");
}

TEST(PrefixEntry, ContentsThatContradictThemselvesAreRefused) {
  const auto says = [](const std::function<void(Json&)>& change) {
    return sentence([&] { unpack(with_header(entry_at(4, 8), change), "", "x"); });
  };
  const auto item = [](Json& h, int i) -> Json& {
    return h["states"][0]["items"][static_cast<std::size_t>(i)];
  };
  EXPECT_EQ(says([](Json&) {}), "");
  EXPECT_SAYS(says([](Json& h) { h["format"] = 2; }), "format 2, this program reads format 1");
  EXPECT_SAYS(says([](Json& h) { h["base"] = 8; }), "from 8 to 8");
  EXPECT_SAYS(says([](Json& h) { h["parent"] = ""; }), "builds on ''");
  EXPECT_SAYS(says([](Json& h) { h["position"] = 9; }), "announces");
  EXPECT_SAYS(says([](Json& h) { h["position"] = std::int64_t{1} << 53; }), "announces");
  EXPECT_SAYS(says([](Json& h) { h["position"] = -1; }), "no count");
  EXPECT_SAYS(says([](Json& h) { h["position"] = 1e300; }), "no count");
  EXPECT_SAYS(says([](Json& h) { h["logits"] = 2; }), "more than its header announces");
  EXPECT_SAYS(says([](Json& h) { h["notes"] = "4"; }), "no count");
  EXPECT_SAYS(says([](Json& h) { h["owner"] = 4; }), "'model'");
  EXPECT_SAYS(says([](Json& h) { h["owner"]["stride"] = 0; }), "stride");
  EXPECT_SAYS(says([](Json& h) { h.erase("states"); }), "'states'");
  EXPECT_SAYS(says([&](Json& h) { item(h, 0)["bytes"] = std::int64_t{1} << 52; }), "announces");
  EXPECT_SAYS(says([&](Json& h) { item(h, 1)["row"] = std::int64_t{1} << 52; }), "announces");
  EXPECT_SAYS(says([&](Json& h) { item(h, 1)["pieces"] = {{0, 3}, {2, 8}}; }), "[2,8] out of order");
  EXPECT_SAYS(says([&](Json& h) { item(h, 1)["pieces"] = {{0, 8}}; }), "across its base 4");
  EXPECT_SAYS(says([&](Json& h) { item(h, 1)["pieces"] = {{4, 9}}; }), "outside [0, 8)");
  EXPECT_SAYS(says([&](Json& h) { item(h, 1)["present"] = {4, 8}; }), "no list of ranges");
  // A header that claims to be longer than the file, or is no JSON.
  const std::string packed = pack(entry_at(0, 4)).bytes;
  std::string longer = packed.substr(0, packed.size() - sizeof(Trailer));
  longer[15] = '\x7f';
  EXPECT_SAYS(sentence([&] { unpack(sealed(longer), "", "x"); }), "announces");
  longer[15] = 0;
  longer[16] = 'x';
  EXPECT_SAYS(sentence([&] { unpack(sealed(longer), "", "x"); }), "not valid JSON");
}

TEST(PrefixEntry, ChainsAreJoinedAndWhatDoesNotFitIsRefused) {
  std::vector<PrefixEntry> chain = {entry_at(0, 4), entry_at(4, 8), entry_at(8, 10)};
  const Snapshot whole = join(chain, "x");
  EXPECT_EQ(whole.tokens, (std::vector<Token>{0, 3, 6, 9, 12, 15, 18, 21, 24, 27}));
  const auto& items = whole.states[0].image.items;
  EXPECT_EQ(items[0].bytes, chain[2].states[0].image.items[0].bytes);
  // The log has the rows of three entries; the window's first row comes from the second.
  const std::vector<std::byte> first = bytes(32, 9), last = bytes(16, 9), window = bytes(24, 9);
  std::vector<std::byte> rows = first;
  rows.insert(rows.end(), first.begin(), first.end());
  rows.insert(rows.end(), last.begin(), last.end());
  ASSERT_EQ(items[1].pieces.size(), 1u);
  EXPECT_EQ(items[1].pieces[0].range, (Log::Range{0, 10}));
  EXPECT_EQ(items[1].pieces[0].rows, rows);
  std::vector<std::byte> seen(window.begin() + 16, window.end());
  seen.insert(seen.end(), last.begin(), last.end());
  ASSERT_EQ(items[2].pieces.size(), 1u);
  EXPECT_EQ(items[2].pieces[0].range, (Log::Range{7, 10}));
  EXPECT_EQ(items[2].pieces[0].rows, seen);

  // Of all but the last the rows are enough.
  std::vector<PrefixEntry> light = chain;
  for (PrefixEntry* entry : {&light[0], &light[1]}) {
    keep_rows_only(*entry);
    EXPECT_TRUE(entry->logits.empty() && entry->states[0].image.items[0].bytes.empty());
  }
  const Snapshot again = join(light, "x");
  EXPECT_EQ(again.tokens, whole.tokens);
  EXPECT_EQ(again.logits, whole.logits);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& item = again.states[0].image.items[i];
    EXPECT_EQ(item.bytes, items[i].bytes);
    ASSERT_EQ(item.pieces.size(), items[i].pieces.size());
    for (std::size_t p = 0; p < item.pieces.size(); ++p)
      EXPECT_EQ(item.pieces[p].rows, items[i].pieces[p].rows);
  }

  const auto says = [&](const std::function<void(std::vector<PrefixEntry>&)>& change) {
    std::vector<PrefixEntry> changed = chain;
    change(changed);
    return sentence([&] { join(changed, "x"); });
  };
  EXPECT_SAYS(says([](auto& c) { c.erase(c.begin() + 1); }),
              "builds on position 8, the one before ends at 4");
  EXPECT_SAYS(says([](auto& c) { c[1].owner.edits = "other"; }), "edits differ");
  EXPECT_SAYS(says([](auto& c) { c[0].states.clear(); }), "different nodes");
  EXPECT_SAYS(says([](auto& c) { c[0].states[0].image.items[1].pieces.clear(); }), "lacks the rows [0, 8)");
  EXPECT_SAYS(says([](auto& c) { c[0].states[0].image.items[1].pieces[0].rows.pop_back(); }),
              "differ in size");
}

TEST(PrefixOwner, SaysWhatDiffers) {
  const PrefixOwner one = entry_at(0, 4).owner;
  PrefixOwner other = one;
  EXPECT_EQ(one.differences(other), "");
  EXPECT_EQ(one.digest(), other.digest());
  other.model = "b";
  EXPECT_EQ(one.differences(other), "model digest differs");
  other.arithmetic["mode"] = "fast";
  EXPECT_EQ(one.differences(other), "model digest differs, numerics differ");
  other = one;
  other.edits.push_back("x");
  EXPECT_EQ(one.differences(other), "edits differ");
  other.stride = 8;
  other.notes = "";
  EXPECT_EQ(one.differences(other), "edits differ, stride differs, what is kept with the tokens differs");
  EXPECT_NE(one.digest(), other.digest());
}

// A digest that was put aside goes on as if it never stopped.
TEST(Digest, GoesOnFromWhereItWasSaved) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 31);
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    Digest first;
    first.add(std::string_view(text).substr(0, cut));
    const std::string saved = first.saved();
    ASSERT_TRUE(Digest::can_resume(saved));
    Digest second = Digest::resume(saved);
    second.add(std::string_view(text).substr(cut));
    ASSERT_EQ(second.hex(), sha256(text)) << cut;
  }
  EXPECT_FALSE(Digest::can_resume("short"));
  EXPECT_FALSE(Digest::can_resume(std::string(Digest().saved().size(), '\xff')));
}

}  // namespace
}  // namespace plait
