// Bad input, wrong usage, full disks and interruptions: one sentence, the contract's exit code, nothing
// half-written.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "runtime/base/error.h"
#include "tests/cli/program.h"
#include "weights/h5.h"

namespace plait {
namespace {

using namespace testing;

TEST(Usage, MistakesAreExitTwoAndOneSentence) {
  small();
  text();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "verb"},
      {"ablat", "ablat"},
      {"frobnicate small.h5", "frobnicate"},
      {"score", "MODEL"},
      {"score small.h5", "--text"},
      {"score small.h5 --text small.txt --tokens small.txt", "--tokens"},
      {"score small.h5 --text small.txt --split 7,0", "7,0"},
      {"score small.h5 --text small.txt --split ''", "split"},
      {"score small.h5 --text small.txt --context 1", "--context"},
      {"score small.h5 --text small.txt --context 5 --stream", "--context"},
      {"score small.h5 --text small.txt --threads 0", "--threads"},
      {"score small.h5 --text small.txt --threads two", "--threads"},
      {"score small.h5 --text small.txt --numerics quick", "--numerics"},
      {"run small.h5 --prompt a --prompt-file small.txt", "--prompt"},
      {"run small.h5 --prompt a -n -1", "-n"},
      {"run small.h5 --prompt a --stop ''", "--stop"},
      {"run small.h5 --prompt a --system s", "--chat"},
      {"run small.h5 --prompt a --chat --load s.h5", "--load"},
      {"run small.h5 --prompt a --seed -1", "--seed"},
      {"new small.json", "DST"},
      {"new small.json x.h5 --dtype f8", "--dtype"},
      {"bench small.h5 -p 0", "-p"},
      {"inspect", "FILE"},
      {"tokenize small.h5 a --text small.txt", "TEXT"},
  };
  const int before = count_files();
  for (const auto& [arguments, part] : cases) {
    SCOPED_TRACE(arguments);
    expect_error(plait(arguments), 2, part);
  }
  EXPECT_EQ(count_files(), before);
}

TEST(Input, MissingAndForeignFiles) {
  small();
  text();
  write(file("words.h5"), "this is no HDF5 file, though its name says so\n");
  write(file("empty.h5"), "");
  {
    h5::File foreign = h5::File::create((write(file("foreign.h5"), ""), file("foreign.h5")), "foreign.h5");
    h5::Group root = foreign.root();
    const double values[4] = {1, 2, 3, 4};
    foreign.write(root, "temperature", h5::Element::f64, {4}, values);
    foreign.close();
  }
  std::filesystem::create_directory(folder() / "directory.h5");
  ASSERT_EQ(mkfifo(file("pipe.h5").c_str(), 0600), 0);
  const int before = count_files();
  for (const char* name : {"missing.h5", "words.h5", "empty.h5", "foreign.h5", "directory.h5", "pipe.h5"})
    for (const char* verb :
         {"inspect ", "run --prompt a ", "score --text small.txt ", "verify ", "bench ", "tokenize "}) {
      const std::string tail = std::string(verb) == "tokenize " ? " a" : "";
      SCOPED_TRACE(std::string(verb) + name);
      expect_error(shell(cat("timeout 60 \"$PLAIT\" ", verb, name, tail)), 3, name);
    }
  expect_error(plait("score small.h5 --text missing.txt"), 3, "missing.txt");
  expect_error(plait("score small.h5 --tokens missing.txt"), 3, "missing.txt");
  expect_error(plait("score small.h5 --text ."), 3, "'.'");
  expect_error(plait("run small.h5 --prompt-file missing.txt"), 3, "missing.txt");
  expect_error(plait("run small.h5 --load missing.h5"), 3, "missing.h5");
  expect_error(plait("run small.h5 --load small.h5"), 3, "small.h5");
  expect_error(plait("new missing.json x.h5"), 3, "missing.json");
  EXPECT_EQ(count_files(), before);
}

TEST(Input, TextsTooShort) {
  small();
  write(file("empty.txt"), "");
  write(file("one.txt"), "a");
  expect_error(plait("run small.h5"), 3, "prompt");
  expect_error(plait("run small.h5 --prompt ''"), 3, "prompt");
  expect_error(plait("run small.h5 --prompt-file empty.txt"), 3, "prompt");
  expect_error(plait("score small.h5 --text empty.txt"), 3, "empty.txt");
  expect_error(plait("score small.h5 --text one.txt"), 3, "one.txt");
  expect_error(plait("verify small.h5 --text empty.txt"), 3, "empty.txt");
}

TEST(Input, CardsWithMistakes) {
  const std::string cards = "'" PLAIT_SOURCE_DIR "/tests/cli/cards/";
  const int before = count_files();
  expect_error(plait("new " + cards + "unknown_key.json' bad.h5"), 3, "widht");
  expect_error(plait("new " + cards + "unknown_setting.json' bad.h5"), 3, "num_haeds");
  expect_error(plait("new " + cards + "unknown_kind.json' bad.h5"), 3, "gated_delta_nett");
  EXPECT_EQ(count_files(), before);

  Json card = Json::parse(read(PLAIT_SOURCE_DIR "/tests/cli/cards/small.json"));
  const auto refuse = [&](const Json& changed, const std::string& part) {
    write(file("card.json"), changed.dump());
    SCOPED_TRACE(part);
    const int files = count_files();
    expect_error(plait("new card.json bad.h5"), 3, part);
    EXPECT_EQ(count_files(), files);
  };
  Json changed = card;
  changed["plait_format"] = 99;
  refuse(changed, "99");
  changed = card;
  changed["width"] = -64;
  refuse(changed, "width");
  changed = card;
  changed["width"] = "wide";
  refuse(changed, "width");
  changed = card;
  changed["blocks"]["wide"][0]["branches"]["attention"]["num_kv_heads"] = 7;
  refuse(changed, "num_kv_heads");
  changed = card;
  changed.erase("vocab");
  refuse(changed, "vocab");
  changed = card;
  changed["pattern"].push_back("missing");
  refuse(changed, "missing");
  // An add of 256 and 64 columns.
  changed = Json::parse(R"({"plait_format": 1, "name": "bad", "vocab": 256, "width": 64, "graph": [
    {"name": "embed", "kind": "embedding"}, {"name": "wide", "kind": "head", "inputs": ["embed"]},
    {"name": "sum", "kind": "add", "inputs": ["embed", "wide"]}, {"name": "head", "kind": "head", "inputs": ["sum"]}]})");
  refuse(changed, "256");
  write(file("card.json"), "{\"plait_format\": 1,");
  expect_error(plait("new card.json bad.h5"), 3, "card.json");
  write(file("card.json"), std::string(100000, '['));
  expect_error(plait("new card.json bad.h5"), 3, "card.json");
}

TEST(Input, DamagedModels) {
  const std::string whole = read(file(small()));
  text();
  for (const std::size_t size : {std::size_t{1}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    SCOPED_TRACE(size);
    write(file("cut.h5"), whole.substr(0, size));
    expect_error(plait("inspect cut.h5"), 3, "cut.h5");
    expect_error(plait("run cut.h5 --prompt a -n 1"), 3, "cut.h5");
  }
  // A flipped bit anywhere is either harmless to the structure or refused: never a crash, never a hang. In a
  // tensor, only the digest can find it.
  std::uint64_t random = 1;
  for (int i = 0; i < 24; ++i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const std::size_t at = i < 12 ? (random >> 33) % 2048 : (random >> 33) % whole.size();
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random >> 60) % 8));
    write(file("flipped.h5"), damaged);
    const Outcome outcome = shell("timeout 60 \"$PLAIT\" inspect flipped.h5 --check --quiet");
    SCOPED_TRACE(cat("byte ", at));
    EXPECT_TRUE(outcome.code == 0 || outcome.code == 3) << outcome.code << outcome.error;
    if (outcome.code == 3) expect_error(outcome, 3, "flipped.h5");
  }
  std::string damaged = whole;
  damaged[whole.size() / 2] = static_cast<char>(damaged[whole.size() / 2] ^ 1);  // inside some tensor
  write(file("flipped.h5"), damaged);
  expect_error(plait("inspect flipped.h5 --check"), 3, "flipped.h5");
}

TEST(Input, DamagedSnapshots) {
  ASSERT_EQ(plait("run " + small() + " --prompt 'once upon a time' -n 3 --save snap.h5 --quiet").code, 0);
  const std::string whole = read(file("snap.h5"));
  for (const std::size_t size : {std::size_t{0}, std::size_t{10}, whole.size() / 2, whole.size() - 1}) {
    write(file("cut_snap.h5"), whole.substr(0, size));
    expect_error(plait("run small.h5 --load cut_snap.h5"), 3, "cut_snap.h5");
  }
  // The trailer's digest covers every bit.
  for (int i = 0; i < 10; ++i) {
    std::string damaged = whole;
    const std::size_t at = whole.size() * static_cast<std::size_t>(i) / 10 + 3;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    write(file("bad_snap.h5"), damaged);
    SCOPED_TRACE(at);
    expect_error(plait("run small.h5 --load bad_snap.h5"), 3, "bad_snap.h5");
    expect_error(plait("inspect bad_snap.h5"), 3, "bad_snap.h5");
  }
  expect_error(plait("score snap.h5 --text " + text()), 3, "snapshot");
}

TEST(Budget, IsKept) {
  small();
  text();
  expect_error(plait("score small.h5 --text small.txt --memory 1000"), 3, "budget");
  const auto size = std::filesystem::file_size(folder() / "small.h5");
  expect_error(plait(cat("score small.h5 --text small.txt --threads 1 --split 1 --memory ", size + 1000)), 3,
               "states");
  EXPECT_EQ(plait("score small.h5 --text small.txt --memory 1GB").code, 0);
}

// Full disks.

TEST(FullDisk, StandardOutput) {
  small();
  text();
  for (const char* arguments :
       {"--help", "--version", "kinds", "inspect small.h5", "score small.h5 --text small.txt",
        "run small.h5 --prompt a -n 5", "kinds --json -", "tokenize small.h5 abc"}) {
    SCOPED_TRACE(arguments);
    expect_error(shell(cat("\"$PLAIT\" ", arguments, " >/dev/full")), 3, "standard output");
  }
}

// A limit on file size acts as a disk that is full after so many blocks of 1,024 bytes.
TEST(FullDisk, OutputFilesAreAbsentOrWhole) {
  small();
  text();
  const std::string card = "'" PLAIT_SOURCE_DIR "/tests/cli/cards/small.json'";
  write(file("kept.json"), "what was here before");
  const int before = count_files();
  const auto full = [&](const std::string& arguments, const std::string& name) {
    SCOPED_TRACE(arguments);
    const Outcome outcome = shell("ulimit -f 16; \"$PLAIT\" " + arguments);
    EXPECT_EQ(outcome.code, 3) << outcome.error;
    EXPECT_NE(outcome.error.find(name), std::string::npos) << outcome.error;
    EXPECT_EQ(count_files(), before) << "something was left behind";
  };
  full("new " + card + " full.h5 --quiet", "full.h5");
  full("score small.h5 --text small.txt --quiet --dump-logits full.npy", "full.npy");
  full("run small.h5 --prompt 'a prompt' -n 40 --quiet --save full.h5", "full.h5");
  full("kinds --quiet --json kept.json", "kept.json");
  EXPECT_EQ(read(file("kept.json")), "what was here before");
  full("kinds --quiet --json missing/kinds.json", "missing/kinds.json");
}

TEST(Output, SpecialFilesAreNotReplaced) {
  small();
  text();
  ASSERT_EQ(mkfifo(file("out.fifo").c_str(), 0600), 0);
  const Outcome outcome = shell(
      "cat out.fifo > copied.json & \"$PLAIT\" score small.h5 --text small.txt --quiet --json out.fifo; "
      "wait; cat copied.json >&2");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.error.find("logits_sha256"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_fifo(folder() / "out.fifo"));
  const std::string card = "'" PLAIT_SOURCE_DIR "/tests/cli/cards/small.json'";
  expect_error(plait("new " + card + " out.fifo --quiet"), 3, "out.fifo");
  expect_error(plait("run small.h5 --prompt a -n 0 --save out.fifo --quiet"), 3, "out.fifo");
  EXPECT_TRUE(std::filesystem::is_fifo(folder() / "out.fifo"));
}

// Interruptions.

TEST(Interrupt, LeavesNothingHalfWritten) {
  small();
  std::string long_text;
  for (int i = 0; i < 400000; ++i) long_text += static_cast<char>('a' + i % 26);
  write(file("long.txt"), long_text);
  for (const int signal : {SIGINT, SIGTERM}) {
    const int before = count_files();
    const pid_t child = fork();
    if (child == 0) {
      if (chdir(folder().c_str()) != 0) _exit(99);
      execl(PLAIT_PROGRAM, "plait", "score", "small.h5", "--text", "long.txt", "--dump-logits", "long.npy",
            "--quiet", nullptr);
      _exit(99);
    }
    // Wait for the temporary file, then interrupt.
    for (int i = 0; i < 3000 && count_files() == before; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(count_files(), before + 1) << "the temporary file never came";
    kill(child, signal);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 130);
    EXPECT_EQ(count_files(), before);
  }
}

TEST(Interrupt, AReaderThatLeavesEndsTheProgram) {
  small();
  const Outcome outcome = shell(
      "\"$PLAIT\" run small.h5 --prompt a -n 1000000 --threads 1 --quiet | head -c 5 >/dev/null; echo "
      "${PIPESTATUS[0]}");
  EXPECT_EQ(outcome.out, "141\n");
  EXPECT_EQ(outcome.error, "");
}

}  // namespace
}  // namespace plait
