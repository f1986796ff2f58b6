// A session that finds its files bent or cut: the bytes of a run that found them whole, or a refusal that
// changes nothing.
#include "tools/stream/session.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>

#include "tests/files.h"
#include "tests/testing.h"
#include "tools/stream/health.h"
#include "weights/snapshot_file.h"

namespace plait::stream {
namespace {

using testing::read_bytes;
using testing::sentence;
using testing::write_bytes;

// 32 tokens before the input, which has three and one checkpoint, at its end.
class Sessions : public ::testing::Test {
 protected:
  Sessions() {
    write_bytes(input_, "ABC");
    Stream stream(model_);
    stream.feed(testing::Numbers(1).tokens(32, 97));
    begin_ = stream.snapshot();
    run();
    journal_ = read_bytes(outputs_.journal);
    snapshot_ = read_bytes(outputs_.save);
  }

  void run() {
    auto input = std::make_unique<Input>(input_, TextPieces(make_tokenizer({}, "bytes"), Specials::without),
                                         Input::AtEnd::finish);
    SessionSettings settings;
    settings.every = 32;
    settings.resume = true;
    Session session(model_, settings, std::move(input), outputs_, &begin_);
    for (session.poll(); !session.ended(); session.poll()) {
      const Item item = session.begin(session.ready());
      run_batch(*model_, {&item, 1}, {settings.options.compute},
                [&](std::size_t, Index position, std::span<const float> row) { session.see(position, row); });
      session.end();
    }
    session.finish();
  }

  void put(const std::string& journal) {
    write_bytes(outputs_.journal, journal);
    write_bytes(outputs_.save, snapshot_);
  }

  void expect_whole(const std::string& what) {
    EXPECT_EQ(read_bytes(outputs_.journal), journal_) << what;
    EXPECT_EQ(read_bytes(outputs_.save), snapshot_) << what;
  }

  const testing::Folder folder_;
  const std::shared_ptr<const Model> model_ = testing::random_model(
      testing::card_of_kind("softmax_attention", {{"num_heads", 2}, {"head_dim", 16}}), 1);
  const std::string input_ = folder_ / "in";
  const Outputs outputs_ = {folder_ / "s.snap", folder_ / "s.journal", {}, {}};
  Snapshot begin_;
  std::string journal_, snapshot_;
};

constexpr std::size_t kHeader = 84, kRecord = 28;  // tools/stream/README.md

// A record whose CRC fits.
std::vector<char> record_at(Index position) {
  std::vector<char> bytes;
  plait::put(bytes, std::int64_t{position});
  plait::put(bytes, 0.5);
  plait::put(bytes, std::int32_t{65});
  plait::put(bytes, std::uint32_t{1});
  plait::put(bytes, crc_of(bytes));
  return bytes;
}

TEST_F(Sessions, EveryByteOfTheJournalMayBeHit) {
  ASSERT_EQ(journal_.size(), kHeader + 3 * kRecord);
  for (std::size_t at = 0; at < journal_.size(); ++at) {
    std::string bent = journal_;
    bent[at] = static_cast<char>(bent[at] ^ (1 << at % 8));
    put(bent);
    const std::string text = sentence([&] { run(); });
    if (at >= kHeader) {
      ASSERT_EQ(text, "") << at;
      expect_whole(cat("byte ", at));
    } else {
      ASSERT_NE(text.find(outputs_.journal), std::string::npos) << at << ": " << text;
      ASSERT_EQ(read_bytes(outputs_.journal), bent) << at;
      ASSERT_EQ(read_bytes(outputs_.save), snapshot_) << at;
    }
  }
}

TEST_F(Sessions, TheJournalMayEndAtAnyByte) {
  // In the header every few bytes: loss_journal_test.cc has all of them.
  for (std::size_t size = 0; size <= journal_.size(); size += size < kHeader ? 7 : 1) {
    put(journal_.substr(0, size));
    ASSERT_EQ(sentence([&] { run(); }), "") << size;
    expect_whole(cat(size, " bytes"));
  }
}

// Whole records of another place: positions that belong to no input that begins here.
TEST_F(Sessions, RecordsOfElsewhereAreNone) {
  for (const Index first : {Index{0}, Index{34}, Index{-1}, std::numeric_limits<Index>::max()}) {
    put(journal_.substr(0, kHeader));
    AppendFile(outputs_.journal).append(record_at(first));
    ASSERT_EQ(sentence([&] { run(); }), "") << first;
    expect_whole(cat("position ", first));
  }
}

TEST_F(Sessions, OfSeveralWritersOneIsRefused) {
  const std::string one = "is being written by process " + std::to_string(::getpid());
  {
    const WriterLock other(outputs_.save);
    EXPECT_NE(sentence([&] { run(); }).find(cat("'", outputs_.save, "' ", one)), std::string::npos);
  }
  {
    const AppendFile other(outputs_.journal);
    EXPECT_NE(sentence([&] { run(); }).find(cat("'", outputs_.journal, "' ", one)), std::string::npos);
  }
  EXPECT_EQ(sentence([&] { run(); }), "");
  expect_whole("afterwards");
  EXPECT_EQ(folder_.names(), (std::vector<std::string>{"in", "s.journal", "s.snap"}));
}

// A line as health_of writes it.
std::string line(const char* position, const char* stream = "s") {
  return cat(R"({"nodes":[],"position":)", position, R"(,"remembrance":{},"stream":")", stream, "\"}\n");
}

TEST(Health, LinesThatAreNoneAreRefused) {
  const std::string one = line("512"), two = line("1024");
  EXPECT_EQ(health_until(one + two, 1024, "s", "h"), one.size() + two.size());
  EXPECT_EQ(health_until(one + two, 1023, "s", "h"), one.size());
  for (const std::size_t torn : {0, 1, 5, 17})
    EXPECT_EQ(health_until(one + two.substr(0, torn), 1024, "s", "h"), one.size()) << torn;
  EXPECT_EQ(health_until(one + two.substr(0, 5) + std::string(20, '\0'), 1024, "s", "h"), one.size());
  EXPECT_EQ(health_until("", 1024, "s", "h"), 0u);
  for (const std::string& other :
       {std::string("\n"), std::string("x\n"), std::string("[]\n"), std::string("512\n"), std::string("{}\n"),
        line("-1"), line("\"512\""), line("5.5"), line("1e300"), line("[512]"),
        std::string("{\"position\":512}\n")})
    for (const std::string& text : {one + other + two, one + two + other})
      EXPECT_EQ(sentence([&] { health_until(text, 512, "s", "h"); }),
                "'h' holds a line that is no health of a stream")
          << text;
  for (const char* notes : {"notes", "{\"node", "{}"})
    EXPECT_EQ(sentence([&] { health_until(one + notes, 1024, "s", "h"); }) == "",
              std::string(notes) == "{\"node")
        << notes;
  EXPECT_NE(sentence([&] { health_until(one + line("600", "t"), 1024, "s", "h"); }).find("another stream"),
            std::string::npos);
}

// Rows of two-byte elements are read as what they are: norms within a rounding of those of f32.
TEST(Health, KnowsNarrowCaches) {
  const auto norms = [](const char* cache) {
    const auto model = testing::random_model(
        testing::card_of_kind("softmax_attention", {{"num_heads", 2}, {"head_dim", 16}, {"cache", cache}}),
        1);
    Stream stream(model);
    const Sequence before = stream.sequence();
    stream.feed(testing::Numbers(1).tokens(100, 97));
    std::vector<double> all;
    const Json health = health_of(stream, before, "s");
    for (const Json& node : health["nodes"])
      for (const Json& field : node["fields"])
        for (const char* key : {"norm", "largest"}) all.push_back(field[key]);
    return all;
  };
  const std::vector<double> exact = norms("f32");
  ASSERT_FALSE(exact.empty());
  for (const auto& [cache, unit] : {std::pair{"f16", 0x1p-11}, {"bf16", 0x1p-8}}) {
    const std::vector<double> narrow = norms(cache);
    ASSERT_EQ(narrow.size(), exact.size());
    for (std::size_t i = 0; i < exact.size(); ++i) {
      EXPECT_GT(exact[i], 0);
      // Of the second block the inputs differ, too, by the first one's rounded keys and values.
      EXPECT_NEAR(narrow[i] / exact[i], 1, i < 4 ? unit : 8 * unit) << cache << " " << i;
    }
  }
}

}  // namespace
}  // namespace plait::stream
