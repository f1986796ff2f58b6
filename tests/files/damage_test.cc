// Files that were cut, bent or made with bad intent: an Error or the right contents, never a crash, a hang or
// a quiet difference.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <thread>

#include "tests/files.h"
#include "tests/files/foreign.h"
#include "tests/testing.h"
#include "weights/model_file.h"
#include "weights/probe.h"
#include "weights/snapshot_file.h"

namespace plait {
namespace {

using testing::Folder;
using testing::sentence;

// Small enough that metadata are most of it.
ModelData tiny_data() {
  ModelData data;
  data.card = {{"plait_format", 1}, {"name", "tiny"}};
  data.source = "a test";
  testing::Numbers numbers(1);
  for (const char* node : {"embed", "blocks.0.mixer", "blocks.1.mixer"})
    data.tensors[node] = {{"weight", make_tensor({3, 2}, numbers.normals(6))},
                          {"gain", make_tensor({2}, numbers.normals(2))}};
  data.tokenizer["tokenizer.json"] = "{}";
  return data;
}

enum class Outcome { refused, found_by_digest, same, wrong };

Outcome outcome(const std::string& path, const ModelData& original) {
  const auto names_it = [&](const std::string& text) { return text.find(path) != std::string::npos; };
  std::string text = sentence([&] { check_digest(path); });
  if (text.find("SHA-256") != std::string::npos && names_it(text)) return Outcome::found_by_digest;
  if (!text.empty()) return names_it(text) ? Outcome::refused : Outcome::wrong;
  bool same = false;
  text = sentence([&] { same = testing::same_tensors(read_model_file(path), original); });
  return same ? Outcome::same : Outcome::wrong;
}

TEST(Damage, TruncatedAtManyLengths) {
  const Folder folder;
  const ModelData data = tiny_data();
  testing::write_model(folder / "m.h5", data);
  const std::string bytes = testing::read_bytes(folder / "m.h5");
  for (std::size_t length = 0; length < bytes.size(); length += 1 + bytes.size() / 80) {
    testing::write_bytes(folder / "cut.h5", bytes.substr(0, length));
    const std::string text = sentence([&] { read_model_file(folder / "cut.h5"); });
    EXPECT_NE(text.find(folder / "cut.h5"), std::string::npos)
        << length << " of " << bytes.size() << ": " << text;
  }
}

TEST(Damage, OneByteChangedAtManyPlaces) {
  const Folder folder;
  const ModelData data = tiny_data();
  testing::write_model(folder / "m.h5", data);
  const std::string bytes = testing::read_bytes(folder / "m.h5");
  testing::Numbers numbers(7);
  std::map<Outcome, int> count;
  for (int i = 0; i < 300; ++i) {
    std::string bent = bytes;
    const std::size_t at = numbers.bits() % bytes.size();
    bent[at] = static_cast<char>(bent[at] ^ static_cast<char>(1 + numbers.bits() % 255));
    testing::write_bytes(folder / "bent.h5", bent);
    const Outcome found = outcome(folder / "bent.h5", data);
    EXPECT_NE(found, Outcome::wrong) << "byte " << at;
    ++count[found];
  }
  // Every way is taken: checksummed metadata, tensors under the digest, alignment gaps nobody reads.
  EXPECT_GT(count[Outcome::refused], 50);
  EXPECT_GT(count[Outcome::found_by_digest], 2);
  EXPECT_GT(count[Outcome::same], 10);
}

// Files as h5py writes them by default have older structures without checksums: the ones that crash the
// library.
TEST(Damage, OneByteChangedInOldStructures) {
  const Folder folder;
  const std::string source = folder / "m.h5";
  {
    testing::Foreign file(source);
    const std::vector<float> values = testing::Numbers(2).normals(12);
    file.tensor("/blocks/0/mixer/q", {4, 3}, values, {});
    file.tensor("/blocks/0/mixer/k", {4, 3}, values, {.chunk = {2, 2}});
    file.tensor("/blocks/1/mixer/q", {12}, values, {.chunk = {5}, .gzip = true});
    file.text("/blocks/1/mixer/q", "layout", "vector");
  }
  const std::string bytes = testing::read_bytes(source);
  ASSERT_EQ(sentence([&] { read_model_file(source); }), "");
  testing::Numbers numbers(9);
  for (int i = 0; i < 400; ++i) {
    std::string bent = bytes;
    const std::size_t at = numbers.bits() % bytes.size();
    bent[at] = static_cast<char>(numbers.bits());
    testing::write_bytes(folder / "bent.h5", bent);
    const std::string text = sentence([&] { read_model_file(folder / "bent.h5"); });
    EXPECT_TRUE(text.empty() || text.find(folder / "bent.h5") != std::string::npos)
        << "byte " << at << ": " << text;
  }
}

// -- The probe itself

TEST(Probe, PassesOnSuccessAndSentences) {
  EXPECT_NO_THROW(probe("f", [](const h5::Beat& beat) { beat(1); }));
  EXPECT_EQ(sentence([] { probe("f", [](const h5::Beat&) { fail("file 'f' is odd"); }); }),
            "file 'f' is odd");
  EXPECT_EQ(sentence([] { probe("f.h5", [](const h5::Beat&) { throw std::runtime_error("odd"); }); }),
            "file 'f.h5' is damaged: odd");
}

TEST(Probe, ADeadChildIsASentence) {
  const auto died = [](const std::function<void()>& how) {
    return sentence([&] { probe("f", [&](const h5::Beat&) { how(); }); });
  };
  EXPECT_NE(died([] { std::abort(); }).find("'f' is damaged"), std::string::npos);
  EXPECT_NE(died([] { ::raise(SIGSEGV); }).find("signal 11"), std::string::npos);
  EXPECT_NE(died([] { ::_exit(0); }).find("without a result"), std::string::npos);
}

TEST(Probe, EndlessWorkAndEndlessWaitingEnd) {
  ProbeLimits limits;
  limits.cpu_seconds = 1;
  const auto spin = [](const h5::Beat&) {
    for (std::atomic<std::uint64_t> i = 0;;) ++i;
  };
  EXPECT_NE(sentence([&] { probe("f", spin, limits); }).find("does not come to an end"), std::string::npos);
  limits.stall_seconds = 1;
  const auto sleep = [](const h5::Beat&) { std::this_thread::sleep_for(std::chrono::hours(1)); };
  EXPECT_NE(sentence([&] { probe("f", sleep, limits); }).find("for 1 seconds"), std::string::npos);
}

TEST(Probe, MemoryIsBounded) {
  if (!kProbeBoundsMemory) GTEST_SKIP() << "sanitizers reserve the address space";
  ProbeLimits limits;
  limits.memory = std::uint64_t{64} << 20;
  const auto take = [](const h5::Beat&) {
    std::vector<std::vector<char> > all;
    while (true) all.emplace_back(std::size_t{1} << 20, 'x');
  };
  EXPECT_NE(sentence([&] { probe("f", take, limits); }).find("64.0 MiB"), std::string::npos);
}

TEST(Probe, WorksWhileOtherThreadsReadFiles) {
  const Folder folder;
  const ModelData data = tiny_data();
  testing::write_model(folder / "m.h5", data);
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) good += testing::same_tensors(read_model_file(folder / "m.h5"), data);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 30);
}

}  // namespace
}  // namespace plait
