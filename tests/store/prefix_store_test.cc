// The prefix store: what is found has the bits of a run without it, every miss has its reason, and nothing
// that happens to the folder does harm.
#include "weights/prefix_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fcntl.h>
#include <filesystem>

#include "tests/files.h"
#include "tests/testing.h"
#include "weights/model_file.h"

namespace plait {
namespace {

namespace fs = std::filesystem;
using testing::Folder;
using testing::Numbers;
using testing::sentence;
using Found = PrefixStore::Found;

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << "says: " << (text)

using ModelPtr = std::shared_ptr<const Model>;

// State of every kind of field, and a log that only grows.
Json hybrid_card() {
  Json card = testing::card_of_kind("softmax_attention", {{"num_heads", 2}, {"head_dim", 16}});
  const Json more = testing::card_of_kind("mamba2", {{"num_heads", 4}, {"head_dim", 16}, {"state_dim", 16}});
  for (Json node : more["graph"]) {
    if (node["name"] != "blocks.0.mixer") continue;
    node["name"] = "blocks.0.second";
    card["graph"].insert(card["graph"].begin() + 3, node);
  }
  return card;
}

ModelPtr small_model(std::uint64_t seed = 1) {
  return testing::random_model(
      testing::card_of_kind("softmax_attention", {{"num_heads", 2}, {"head_dim", 16}}), seed);
}

// Feeds what the store did not have, storing on the way; returns the last logits.
std::vector<float> go_on(PrefixStore& store, Found& found, std::span<const Token> prompt) {
  for (const Index stop : found.saves) {
    const auto at = static_cast<std::size_t>(found.stream.position());
    found.stream.feed(prompt.subspan(at, static_cast<std::size_t>(stop) - at));
    store.save(found.owner, found.stream);
  }
  store.tally();  // waits: the folder has all of it now
  const auto logits = found.stream.logits();
  return {logits.begin(), logits.end()};
}

struct Outcome {
  Index hit = 0, shared = 0;
  std::string miss;
  std::vector<float> logits;
  std::string state;
};

Outcome through(PrefixStore& store, const ModelPtr& model, std::span<const Token> prompt,
                const StreamOptions& options = {}) {
  Found found = store.find(model, options, prompt);
  Outcome outcome{found.hit, found.shared, found.miss, go_on(store, found, prompt), ""};
  outcome.state = found.stream.state_digest();
  return outcome;
}

void expect_plain(const Outcome& outcome, const ModelPtr& model, std::span<const Token> prompt,
                  const StreamOptions& options = {}) {
  Stream plain(model, options);
  EXPECT_TRUE(testing::same_bits(plain.feed(prompt), outcome.logits));
  EXPECT_EQ(plain.state_digest(), outcome.state);
}

std::vector<Token> joined(std::span<const Token> a, std::span<const Token> b) {
  std::vector<Token> all(a.begin(), a.end());
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

PrefixStoreOptions in(const std::string& folder, std::uint64_t bytes = std::uint64_t{1} << 30) {
  return {folder, bytes, 32};
}

std::vector<std::string> entries(const Folder& folder) {
  std::vector<std::string> all;
  for (const std::string& name : folder.names())
    if (name.ends_with(".prefix")) all.push_back(folder / name);
  return all;
}

// -- Bits

struct Case {
  std::string name;
  ModelPtr model;
  EditList edits = {};
};

std::vector<Case> cases() {
  const std::string bundled = std::string(PLAIT_SOURCE_DIR) + "/weights/models/tiny-hybrid.h5";
  const auto kind = [](const char* name, const Json& settings) {
    return testing::random_model(testing::card_of_kind(name, settings), 11);
  };
  const auto edit = [](const char* where, const char* op, Json settings) {
    settings.update({{"where", where}, {"operator", op}});
    return parse_edits(Json::array({std::move(settings)}));
  };
  const Json attention = {{"num_heads", 2}, {"head_dim", 32}};
  const Json delta = {{"num_heads", 2}, {"head_dim", 32}, {"value_head_dim", 32}};
  const auto with = [](Json settings, const Json& more) {
    settings.update(more);
    return settings;
  };
  const ModelPtr hybrid = testing::random_model(hybrid_card(), 3);
  return {
      {"bundled", load(bundled)},
      {"hybrid", hybrid},
      {"window", kind("softmax_attention", with(attention, {{"window", 24}, {"sinks", 2}}))},
      {"long window", kind("softmax_attention", with(attention, {{"window", 100}}))},
      {"stale reads", kind("gated_delta_net", delta), edit("blocks.0.mixer/state", "stale", {{"value", 45}})},
      {"skipped", kind("gated_delta_net", delta), edit("blocks.0", "skip", {{"tokens", {40, 90}}})},
      {"reset", hybrid, edit("blocks.0.mixer/state", "reset", {{"tokens", {70, 71}}})},
      {"window by an edit", hybrid, edit("blocks.0.mixer/window", "set", {{"value", 40}, {"sinks", 4}})}};
}

TEST(PrefixStore, WhatIsFoundHasTheBitsOfARunWithoutTheStore) {
  const Folder folder;
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    StreamOptions options;
    options.edits = c.edits;
    for (const std::string& place : {folder / c.name, std::string()}) {
      PrefixStore store(in(place));
      const Index stride = store.find(c.model, options, std::vector<Token>{1}).owner.stride;
      const std::vector<Token> prompt = Numbers(7).tokens(3 * stride + 21, c.model->card().vocab);
      const std::span<const Token> all(prompt);
      expect_plain(through(store, c.model, all, options), c.model, all, options);
      // The whole, past the end, and parting before, at and behind a boundary.
      const std::vector<Token> other = Numbers(8).tokens(40, c.model->card().vocab);
      struct Try {
        std::size_t kept;
        Index hit;
      };
      const auto s = static_cast<std::size_t>(stride);
      for (const Try t : {Try{prompt.size(), 3 * stride + 21}, Try{2 * s - 1, stride}, Try{2 * s, 2 * stride},
                          Try{2 * s + 1, 2 * stride}}) {
        const std::vector<Token> now = joined(all.first(t.kept), other);
        const Outcome outcome = through(store, c.model, now, options);
        EXPECT_EQ(outcome.hit, t.hit) << outcome.miss;
        EXPECT_EQ(outcome.miss.empty(), outcome.hit == static_cast<Index>(now.size())) << outcome.miss;
        expect_plain(outcome, c.model, now, options);
      }
      EXPECT_EQ(store.tally().not_saved, "");
    }
  }
}

TEST(PrefixStore, TheSamePromptAgainRunsNothing) {
  const Folder folder;
  const ModelPtr model = small_model();
  for (const Index length : {1, 31, 32, 33, 100}) {
    const std::vector<Token> prompt = Numbers(static_cast<std::uint64_t>(length)).tokens(length, 97);
    PrefixStore(in(folder.path())).find(model, {}, prompt);  // finding alone stores nothing
    {
      PrefixStore store(in(folder.path()));
      EXPECT_EQ(through(store, model, prompt).hit, 0);
    }
    PrefixStore store(in(folder.path()));
    const Found found = store.find(model, {}, prompt);
    EXPECT_EQ(found.hit, length);
    EXPECT_EQ(found.miss, "");
    EXPECT_TRUE(found.saves.empty());
    Stream plain(model);
    EXPECT_TRUE(testing::same_bits(found.stream.logits(), plain.feed(prompt)));
  }
}

TEST(PrefixStore, TheStreamKeepsItsOwnNameAndDepth) {
  PrefixStore store(in(""));
  const ModelPtr model = small_model();
  const std::vector<Token> prompt = Numbers(1).tokens(40, 97);
  through(store, model, prompt);
  StreamOptions options;
  options.id = 7;
  options.rollback_depth = 8;
  const Found found = store.find(model, options, prompt);
  EXPECT_EQ(found.hit, 40);
  EXPECT_EQ(found.stream.options().id, 7u);
  EXPECT_EQ(found.stream.options().rollback_depth, 8);
}

// A prompt that parts from a stored one at any token goes on from the last entry at or before; the place
// where they part is stored, so that the third one finds it.
TEST(PrefixStore, MatchesAtAnyToken) {
  const ModelPtr model = small_model();
  const std::vector<Token> first = Numbers(1).tokens(130, 97);
  for (std::size_t part = 0; part < first.size(); ++part) {
    PrefixStore store(in(""));
    through(store, model, first);
    std::vector<Token> second(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(part));
    second.resize(140, (first[part] + 1) % 97);
    const Outcome outcome = through(store, model, second);
    const auto shared = static_cast<Index>(part);
    EXPECT_EQ(outcome.shared, shared);
    EXPECT_EQ(outcome.hit, shared / 32 * 32);
    if (part == 0)
      EXPECT_SAYS(outcome.miss, "no stored prompt begins like this one");
    else if (outcome.hit == 0)
      EXPECT_SAYS(outcome.miss, "no entry lies within them");
    else
      EXPECT_SAYS(outcome.miss, cat("the first ", part, " of 140 tokens, the last entry within them is at "));
  }
}

TEST(PrefixStore, TheTokenWherePromptsPartIsKept) {
  const ModelPtr model = small_model();
  const PrefixStoreOptions options{"", std::uint64_t{1} << 30, 512};
  const std::vector<Token> common = Numbers(1).tokens(300, 97);
  PrefixStore store(options);
  EXPECT_EQ(through(store, model, joined(common, std::vector<Token>{1, 2})).hit, 0);
  EXPECT_EQ(through(store, model, joined(common, std::vector<Token>{3, 4})).hit, 0);
  const std::vector<Token> third = joined(common, std::vector<Token>{5, 6});
  const Outcome outcome = through(store, model, third);
  EXPECT_EQ(outcome.hit, 300);
  expect_plain(outcome, model, third);
}

TEST(PrefixStore, ARepliesTokensAreFoundInTheNextPrompt) {
  const ModelPtr model = small_model();
  StreamOptions edited;
  edited.edits =
      parse_edits(Json::array({{{"where", "blocks.0.mixer"}, {"operator", "zero"}, {"phase", "decode"}}}));
  const std::vector<Token> prompt = Numbers(1).tokens(50, 97), reply = Numbers(2).tokens(30, 97);
  for (const StreamOptions& options : {StreamOptions(), edited}) {
    PrefixStore store(in(""));
    Found found = store.find(model, options, prompt);
    go_on(store, found, prompt);
    for (const Token token : reply) {
      found.stream.feed(std::span(&token, 1), Origin::sampled);
      if (found.stream.position() == found.next_save(found.stream.position() - 1))
        store.save(found.owner, found.stream);
    }
    store.save(found.owner, found.stream);
    const std::vector<Token> next = joined(prompt, reply);
    const Outcome outcome = through(store, model, next, options);
    expect_plain(outcome, model, next, options);
    // What an edit of sampled tokens did to them is not what it does to a prompt.
    EXPECT_EQ(outcome.hit, options.edits.empty() ? 80 : 50);
  }
}

// A stream that did not pass its boundaries in this store: its entry stands on its own.
TEST(PrefixStore, AnEntryWithoutItsBoundariesHoldsEverything) {
  const ModelPtr model = testing::random_model(hybrid_card(), 3);
  const std::vector<Token> tokens = Numbers(8).tokens(150, model->card().vocab);
  PrefixStore store(in(""));
  Found found = store.find(model, {}, std::span(tokens).first(1));
  Stream stream(model);
  stream.feed(std::span(tokens).first(120));
  store.save(found.owner, stream);
  EXPECT_EQ(store.tally().saved, 1) << store.tally().not_saved;
  const Outcome outcome = through(store, model, tokens);
  EXPECT_EQ(outcome.hit, 120);
  expect_plain(outcome, model, tokens);
  EXPECT_EQ(store.find(model, {}, tokens).hit, 150) << "and others build on its boundaries";
}

TEST(PrefixStore, NotesComeBackWithTheirTokens) {
  PrefixStore store(in(""));
  const ModelPtr model = small_model();
  const std::vector<Token> prompt = Numbers(1).tokens(80, 97);
  Found found = store.find(model, {}, prompt, "numbers");
  for (const Index stop : found.saves) {
    const auto at = static_cast<std::size_t>(found.stream.position());
    found.stream.feed(std::span(prompt).subspan(at, static_cast<std::size_t>(stop) - at));
    store.save(found.owner, found.stream, cat(PrefixStore::base(found.owner, stop), "-", stop));
  }
  const Found again = store.find(model, {}, prompt, "numbers");
  EXPECT_EQ(again.notes, (std::vector<std::string>{"0-32", "32-64", "64-80"}));
  EXPECT_EQ(store.find(model, {}, prompt).miss, "what is kept with the tokens differs");
}

// -- Misses

TEST(PrefixStore, EveryMissHasItsReason) {
  const Folder folder;
  const ModelPtr model = small_model(1), other = small_model(2);
  const std::vector<Token> prompt = Numbers(1).tokens(70, 97);
  PrefixStore store(in(folder.path()));
  EXPECT_EQ(store.find(model, {}, prompt).miss, "the store is empty");
  through(store, model, prompt);
  EXPECT_EQ(store.find(other, {}, prompt).miss, "model digest differs");
  StreamOptions options;
  options.compute.numerics = Numerics::fast;
  EXPECT_EQ(store.find(model, options, prompt).miss, "numerics differ");
  options.compute.numerics = Numerics::exact;
  options.edits = parse_edits(Json::array({{{"where", "blocks.0.mixer"}, {"operator", "zero"}}}));
  EXPECT_EQ(store.find(model, options, prompt).miss, "edits differ");
  EXPECT_EQ(store.find(other, options, prompt).miss, "model digest differs, edits differ");
  options.edits[0].strength = 0;  // does nothing
  EXPECT_EQ(store.find(model, options, prompt).miss, "");
  PrefixStore wide({folder.path(), std::uint64_t{1} << 30, 64});
  EXPECT_EQ(wide.find(model, {}, prompt).miss, "stride differs");
  EXPECT_EQ(store.find(other, {}, Numbers(5).tokens(70, 97)).miss, "no stored prompt begins like this one");
  EXPECT_EQ(store.find(model, {}, {}).miss, "");  // nothing was asked for
  // The same tensors under a card that says something else.
  ModelData changed = testing::random_data(model->card().json, 1);
  changed.card["graph"][1]["eps"] = 0.5;
  EXPECT_EQ(store.find(std::make_shared<const Model>(std::move(changed)), {}, prompt).miss,
            "model digest differs");
}

// -- Budget

TEST(PrefixStore, TheLeastRecentlyUsedGoAndNoChainBreaks) {
  const Folder folder;
  const ModelPtr model = small_model();
  std::uint64_t one = 0;
  {
    PrefixStore store(in(""));
    through(store, model, Numbers(99).tokens(96, 97));
    one = store.bytes();
  }
  const std::uint64_t budget = 4 * one;
  for (const std::string& place : {folder.path(), std::string()}) {
    PrefixStore store(in(place, budget));
    std::vector<std::vector<Token>> prompts;
    for (std::uint64_t p = 0; p < 12; ++p) {
      prompts.push_back(Numbers(100 + p).tokens(96, 97));
      through(store, model, prompts.back());
      through(store, model, prompts.front());  // stays in use
      EXPECT_LE(store.bytes(), budget);
    }
    EXPECT_EQ(store.tally().not_saved, "");
    EXPECT_GE(store.tally().evicted, 6);
    const auto hit = [&](std::size_t p) { return store.find(model, {}, prompts[p]).hit; };
    EXPECT_EQ(hit(0), 96);
    EXPECT_EQ(hit(11), 96);
    EXPECT_EQ(hit(10), 96);
    EXPECT_EQ(hit(1), 0);
    // Children go before what they build on: whatever is left is whole.
    for (std::size_t p = 0; p < prompts.size(); ++p) {
      const Found found = store.find(model, {}, prompts[p]);
      EXPECT_EQ(found.miss.find("cannot be used"), std::string::npos) << found.miss;
      EXPECT_EQ(found.hit, found.shared / 32 * 32);
    }
    if (place.empty()) continue;
    std::uint64_t on_disk = 0;
    for (const std::string& file : entries(folder)) on_disk += fs::file_size(file);
    EXPECT_EQ(on_disk, store.bytes());
  }
}

TEST(PrefixStore, WhatDoesNotFitIsNotStored) {
  const ModelPtr model = small_model();
  const std::vector<Token> prompt = Numbers(1).tokens(96, 97);
  PrefixStore tiny(in("", 1000));
  expect_plain(through(tiny, model, prompt), model, prompt);
  EXPECT_EQ(tiny.bytes(), 0u);
  EXPECT_SAYS(tiny.tally().not_saved, "the entry at 32: it has ");
  EXPECT_SAYS(tiny.tally().not_saved, "the store's budget is 1000 bytes");
  PrefixStore whole(in(""));
  through(whole, model, prompt);
  PrefixStore half(in("", whole.bytes() / 2));
  through(half, model, prompt);
  EXPECT_SAYS(half.tally().not_saved, "what it builds on");
  EXPECT_EQ(half.tally().evicted, 0);
  EXPECT_EQ(half.find(model, {}, prompt).hit, 32);
}

// Not the clock decides what was used last.
TEST(PrefixStore, ClocksPlayNoPart) {
  const Folder folder;
  const ModelPtr model = small_model();
  const std::vector<Token> a = Numbers(1).tokens(32, 97), b = Numbers(2).tokens(32, 97),
                           c = Numbers(3).tokens(32, 97);
  std::uint64_t budget = 0;
  {
    PrefixStore store(in(folder.path()));
    through(store, model, a);
    const std::vector<std::string> old = entries(folder);
    through(store, model, b);
    through(store, model, a);
    budget = store.bytes() + 100;
    // The file used last looks like the oldest, the other one comes from the future.
    for (const std::string& file : entries(folder)) {
      const time_t when = file == old.front() ? 1 : 4000000000;
      const timeval times[2] = {{when, 0}, {when, 0}};
      ASSERT_EQ(::utimes(file.c_str(), times), 0);
    }
  }
  PrefixStore store(in(folder.path(), budget));
  through(store, model, c);
  EXPECT_EQ(store.find(model, {}, a).hit, 32);
  EXPECT_EQ(store.find(model, {}, b).hit, 0);
}

// -- Damage

class Damaged : public ::testing::Test {
 protected:
  void SetUp() override {
    PrefixStore store(in(folder_.path()));
    through(store, model_, prompt_);
    ASSERT_EQ(entries(folder_).size(), 3u);
  }
  // By position: the entries at 32, 64 and 70 grow shorter only at the end.
  std::string file_at(Index position) {
    for (const std::string& file : entries(folder_))
      if (unpack(testing::read_bytes(file), "", file).position == position) return file;
    return "";
  }
  // Whatever is there, the bits are right; afterwards the store is whole again.
  Outcome expect_recovery() {
    PrefixStore store(in(folder_.path()));
    const Outcome outcome = through(store, model_, prompt_);
    expect_plain(outcome, model_, prompt_);
    EXPECT_EQ(store.tally().not_saved, "");
    EXPECT_EQ(store.find(model_, {}, prompt_).hit, 70);
    EXPECT_EQ(entries(folder_).size(), 3u);
    return outcome;
  }

  const Folder folder_;
  const ModelPtr model_ = small_model();
  const std::vector<Token> prompt_ = Numbers(1).tokens(70, 97);
};

TEST_F(Damaged, ABentEntryIsAMissAndRemoved) {
  Numbers numbers(3);
  for (const Index position : {32, 64, 70}) {
    const std::string file = file_at(position), bytes = testing::read_bytes(file);
    for (int i = 0; i < 12; ++i) {
      std::string bent = bytes;
      const std::size_t at = i == 0 ? 0 : i == 1 ? bytes.size() - 1 : numbers.bits() % bytes.size();
      bent[at] = static_cast<char>(bent[at] ^ static_cast<char>(1 + numbers.bits() % 255));
      testing::write_bytes(file, bent);
      const Outcome outcome = expect_recovery();
      // A chain is worth what lies before the damage.
      EXPECT_EQ(outcome.hit, position == 32 ? 0 : position == 64 ? 32 : 64);
      EXPECT_SAYS(outcome.miss, cat("the entry at ", position, " cannot be used: file '"));
      ASSERT_EQ(testing::read_bytes(file), bytes);  // made again, the same
    }
  }
}

TEST_F(Damaged, ACutOrLostEntryIsAMiss) {
  const std::string file = file_at(64), bytes = testing::read_bytes(file);
  for (std::size_t length = 0; length < bytes.size(); length += 1 + bytes.size() / 20) {
    testing::write_bytes(file, bytes.substr(0, length));
    EXPECT_EQ(expect_recovery().hit, 32);
  }
  fs::remove(file);
  EXPECT_SAYS(expect_recovery().miss, "No such file");
  fs::remove(file);
  fs::create_symlink(file_at(32), file);
  EXPECT_EQ(expect_recovery().hit, 32);
}

TEST_F(Damaged, AnEntryInAnothersPlaceIsAMiss) {
  // A whole entry, but not the one the index means.
  testing::write_bytes(file_at(70), testing::read_bytes(file_at(32)));
  EXPECT_SAYS(expect_recovery().miss, "is another entry");
}

TEST_F(Damaged, ABrokenIndexIsMadeAnew) {
  const std::string index = folder_ / "index.sqlite", bytes = testing::read_bytes(index);
  for (const std::string& broken :
       {std::string("no database at all, but long enough to be looked at"), bytes.substr(0, bytes.size() / 2),
        std::string(bytes.size(), '\0'), bytes.substr(0, 100) + std::string(bytes.size() - 100, '\xff')}) {
    testing::write_bytes(index, broken);
    const Outcome outcome = expect_recovery();
    EXPECT_EQ(outcome.hit, 0);
    EXPECT_SAYS(outcome.miss, "index");
  }
  fs::remove(index);
  EXPECT_EQ(expect_recovery().miss, "the store is empty");
}

// Whatever a bent index says, no wrong state comes of it.
TEST_F(Damaged, ABentIndexNeverGivesAWrongState) {
  const std::string index = folder_ / "index.sqlite", bytes = testing::read_bytes(index);
  const std::string keep = folder_ / "keep";
  fs::create_directory(keep);
  for (const std::string& file : entries(folder_)) fs::copy(file, keep);
  Numbers numbers(4);
  for (int i = 0; i < 150; ++i) {
    std::string bent = bytes;
    for (int k = 0; k < 4; ++k) bent[numbers.bits() % bent.size()] = static_cast<char>(numbers.bits());
    testing::write_bytes(index, bent);
    fs::copy(keep, folder_.path(), fs::copy_options::overwrite_existing);
    const std::string text = sentence([&] {
      PrefixStore store(in(folder_.path()));
      expect_plain(through(store, model_, prompt_), model_, prompt_);
    });
    if (!text.empty()) {
      EXPECT_SAYS(text, "index.sqlite");  // of a version to come
    }
  }
}

TEST_F(Damaged, AnotherVersionIsRefusedNotRemoved) {
  const std::string index = folder_ / "index.sqlite";
  std::string bytes = testing::read_bytes(index);
  bytes[63] = 2;  // the header's user version, big-endian
  testing::write_bytes(index, bytes);
  EXPECT_SAYS(sentence([&] { PrefixStore store(in(folder_.path())); }),
              "version 2, this program reads version 1");
  EXPECT_EQ(entries(folder_).size(), 3u);
}

// An SQLite database of one page, without tables, that says it is a GeoPackage (sqlite.org/fileformat2.html).
std::string geopackage() {
  std::string bytes("SQLite format 3\0\x02\0\1\1\0\x40\x20\x20\0\0\0\1\0\0\0\1", 32);
  bytes.resize(512);
  bytes[43] = 7;  // the schema's version
  bytes[47] = 4;  // and format
  bytes[59] = 1;  // UTF-8
  bytes.replace(68, 4, "GPKG");
  bytes[95] = 1;     // the page count is that of change 1
  bytes[100] = 0xD;  // the root of the table of tables: a leaf without cells
  bytes[105] = 2;    // whose contents begin at byte 512
  return bytes;
}

// What is called like an index and was never one is somebody's.
TEST(PrefixStore, AnIndexOfSomebodyElseIsLeftAlone) {
  const Folder folder;
  const std::string index = folder / "index.sqlite";
  for (const std::string& bytes : {geopackage(), std::string("a text that is called like that")}) {
    testing::write_bytes(index, bytes);
    EXPECT_SAYS(sentence([&] { PrefixStore store(in(folder.path())); }), "it is left as it is");
    EXPECT_EQ(testing::read_bytes(index), bytes);
  }
}

TEST(PrefixStore, ALockThatCannotBeHadSaysWhy) {
  const Folder folder;
  ASSERT_EQ(::mkdir((folder / "lock").c_str(), 0777), 0);
  const ModelPtr model = small_model();
  PrefixStore store(in(folder.path()));
  through(store, model, Numbers(1).tokens(32, 97));
  EXPECT_SAYS(store.tally().not_saved, "the store cannot be locked: Is a directory");
}

// -- The world around

// The exit code of what runs in a child process.
int in_child(const std::function<bool()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    bool good = false;
    try {
      good = body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_F(Damaged, AReadOnlyFolderIsReadAndSaysThatItDoesNotStore) {
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0555), 0);
  const std::vector<std::string> before = folder_.names();
  EXPECT_EQ(in_child([&] {
              if (::geteuid() == 0 && ::setuid(65534) != 0) return false;  // root may write anywhere
              PrefixStore store(in(folder_.path()));
              const bool found = store.find(model_, {}, prompt_).hit == 70;
              const std::vector<Token> longer = joined(prompt_, std::vector<Token>{1, 2});
              return found && through(store, model_, longer).hit == 70 &&
                     store.tally().not_saved ==
                         cat("the entry at 72: the folder '", folder_.path(), "' is read-only");
            }),
            0);
  EXPECT_EQ(folder_.names(), before);
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
}

TEST(PrefixStore, AFolderThatIsNoneIsRefused) {
  const Folder folder;
  testing::write_bytes(folder / "file", "x");
  EXPECT_SAYS(sentence([&] { PrefixStore store(in(folder / "file")); }), "cannot use");
  EXPECT_SAYS(sentence([&] { PrefixStore store(in(folder / "file/below")); }), "cannot use");
}

TEST(PrefixStore, FilesOfOthersAreLeftAlone) {
  const Folder folder;
  const std::string hash(64, 'a');
  for (const std::string& name : {std::string("notes.tmp"), hash, hash + ".h5", std::string("x.prefix")})
    testing::write_bytes(folder / name, "mine");
  testing::write_bytes(folder / (hash + ".prefix"), "left by a killed writer");
  testing::write_bytes(folder / (hash + ".prefix.77-1.tmp"), "left by a killed writer");
  PrefixStore store(in(folder.path()));
  EXPECT_EQ(folder.names(),
            (std::vector<std::string>{hash, hash + ".h5", "index.sqlite", "lock", "notes.tmp", "x.prefix"}));
}

TEST(PrefixStore, AFullDiskIsNoErrorAndLeavesNothing) {
  const Folder folder;
  const ModelPtr model = small_model();
  const std::vector<Token> prompt = Numbers(1).tokens(96, 97);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  for (const rlim_t limit :
       {rlim_t{0}, rlim_t{100}, rlim_t{6000}, rlim_t{12000}, rlim_t{40000}, rlim_t{60000}}) {
    PrefixStore(in(folder.path()));  // the index is there
    const rlimit full{limit, before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &full);
    std::string not_saved;
    {
      PrefixStore store(in(folder.path()));
      const Outcome outcome = through(store, model, prompt);
      not_saved = store.tally().not_saved;
      ::setrlimit(RLIMIT_FSIZE, &before);
      expect_plain(outcome, model, prompt);
    }
    if (limit <= 12000) {
      EXPECT_NE(not_saved, "") << limit;
    }
    for (const std::string& name : folder.names()) EXPECT_FALSE(name.ends_with(".tmp")) << name;
    PrefixStore store(in(folder.path()));
    expect_plain(through(store, model, prompt), model, prompt);
    EXPECT_EQ(store.find(model, {}, prompt).hit, 96);
    for (const std::string& name : folder.names()) fs::remove(folder / name);
  }
  ::signal(SIGXFSZ, old_handler);
}

// Prompts that share beginnings, in a store too small for all of them.
bool work(const std::string& folder, std::uint64_t seed, int rounds, std::uint64_t budget) {
  const ModelPtr model = small_model();
  Numbers numbers(seed);
  for (int i = 0; i < rounds; ++i) {
    PrefixStore store(in(folder, budget));
    std::vector<Token> prompt = Numbers(numbers.bits() % 3).tokens(64, 97);
    prompt.resize(40 + numbers.bits() % 60, static_cast<Token>(numbers.bits() % 2));
    const Outcome outcome = through(store, model, prompt);
    Stream plain(model);
    if (!testing::same_bits(plain.feed(prompt), outcome.logits)) return false;
    if (plain.state_digest() != outcome.state) return false;
  }
  return true;
}

TEST(PrefixStore, ManyProcessesUseOneFolder) {
  const Folder folder;
  std::uint64_t budget = 0;
  {
    PrefixStore store(in(""));
    through(store, small_model(), Numbers(0).tokens(100, 97));
    budget = 2 * store.bytes();
  }
  std::vector<pid_t> children;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    children.push_back(::fork());
    if (children.back() == 0) {
      try {
        ::_exit(work(folder.path(), seed, 25, budget) ? 0 : 1);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
      }
      ::_exit(2);
    }
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  PrefixStore store(in(folder.path(), budget));
  EXPECT_LE(store.bytes(), budget);
  std::uint64_t on_disk = 0;
  for (const std::string& file : entries(folder)) on_disk += fs::file_size(file);
  EXPECT_EQ(on_disk, store.bytes());
}

TEST(PrefixStore, AKilledWriterLeavesAStoreThatWorks) {
  const Folder folder;
  const ModelPtr model = small_model();
  const std::uint64_t budget = std::uint64_t{1} << 20;
  Numbers numbers(5);
  for (int i = 0; i < 25; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      work(folder.path(), numbers.bits(), 1000000, budget);
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(1000 + numbers.bits() % 60000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    PrefixStore store(in(folder.path(), budget));
    for (const std::string& name : folder.names()) EXPECT_FALSE(name.ends_with(".tmp")) << name;
    const std::vector<Token> prompt = Numbers(numbers.bits()).tokens(70, 97);
    const Outcome outcome = through(store, model, prompt);
    EXPECT_EQ(outcome.miss.find("cannot be used"), std::string::npos) << outcome.miss;
    expect_plain(outcome, model, prompt);
    EXPECT_EQ(store.find(model, {}, prompt).hit, 70);
  }
}

// While somebody writes, nothing of theirs is swept away.
TEST(PrefixStore, ASweepWaitsForWriters) {
  const Folder folder;
  const std::string temporary = folder / (std::string(64, 'c') + ".prefix.1-1.tmp");
  PrefixStore(in(folder.path()));
  const int lock = ::open((folder / "lock").c_str(), O_RDWR);
  ASSERT_EQ(::flock(lock, LOCK_SH), 0);
  testing::write_bytes(temporary, "half");
  PrefixStore(in(folder.path()));
  EXPECT_TRUE(fs::exists(temporary));
  ::close(lock);
  PrefixStore(in(folder.path()));
  EXPECT_FALSE(fs::exists(temporary));
}

}  // namespace
}  // namespace plait
