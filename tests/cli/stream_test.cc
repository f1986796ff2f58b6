// plait stream: the same bytes whatever happens to it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "runtime/base/error.h"
#include "tests/cli/program.h"
#include "tests/testing.h"
#include "tools/append_file.h"
#include "tools/stream/loss_journal.h"
#include "weights/file_lock.h"

namespace plait {
namespace {

using namespace testing;
using std::chrono::milliseconds;

// 6,000 bytes that do not repeat.
std::string long_text() {
  if (!exists("long-stream.txt")) {
    Numbers numbers(11);
    std::string words;
    while (words.size() < 6000) words += cat("word", numbers.bits() % 9973, words.size() % 7 ? " " : ".\n");
    words.resize(6000);
    write(file("long-stream.txt"), words);
  }
  return "long-stream.txt";
}

std::string outputs(const std::string& name) {
  return cat(" --save ", name, ".snap --per-token ", name, ".h5 --health ", name, ".health");
}

std::vector<std::string> files_of(const std::string& name) {
  return {read(file(name + ".h5.journal")), read(file(name + ".h5")), read(file(name + ".health"))};
}

void remove_outputs(const std::string& name) {
  for (const char* end : {".snap", ".h5", ".h5.journal", ".health"})
    std::filesystem::remove(file(name + end));
}

// What an uninterrupted run writes.
std::vector<std::string> whole_run() {
  if (!exists("whole.h5")) {
    const Outcome outcome =
        plait("stream " + small() + " --quiet --every 512 --in " + long_text() + outputs("whole"));
    EXPECT_EQ(outcome.code, 0) << outcome.error;
  }
  return files_of("whole");
}

std::string resume(const std::string& name) {
  return cat("stream ", small(), " --quiet --every 512 --resume --in ", long_text(), outputs(name));
}

TEST(Stream, GivesTheLossesOfScore) {
  const Json scored =
      plait("score " + small() + " --text " + long_text() + " --json - --per-token scored.h5").json();
  const Outcome streamed =
      plait("stream " + small() + " --in " + long_text() + " --journal j1 --json - --quiet < " + long_text());
  ASSERT_EQ(streamed.code, 0) << streamed.error;
  const Json input = streamed.json()["inputs"][0];
  EXPECT_EQ(input["tokens"], 6000);
  EXPECT_EQ(input["scored"], 5999);
  EXPECT_EQ(input["nll"], scored["nll"]) << "bit for bit";
  EXPECT_EQ(input["top1"], scored["top1"]);
  const Json inspected = plait("inspect " + small() + " --state --at 17 --at 6000 --json -").json();
  EXPECT_EQ(inspected["stream_bytes"][1]["tokens"], 6000);
  EXPECT_EQ(inspected["stream_bytes"][1]["bytes"], input["state_bytes"]) << "predicted and measured";
  EXPECT_EQ(inspected["stream_bytes"][1]["token_bytes"], input["token_bytes"]);
  EXPECT_LT(input["token_bytes"], 4 * 1024) << "not those of all tokens";
  const auto losses = stream::LossJournal::read(file("j1"));
  ASSERT_EQ(losses.size(), 5999u);
  EXPECT_EQ(losses.front().position, 1);
  whole_run();
  EXPECT_EQ(read(file("whole.h5.journal")), read(file("j1"))) << "checkpoints change no bit";
}

TEST(Stream, APipeGivesTheBytesOfAFile) {
  whole_run();
  const Outcome outcome = shell("{ head -c 777 " + long_text() + "; sleep 0.2; tail -c +778 " + long_text() +
                                "; } | \"$PLAIT\" stream " + small() + " --journal j2 --quiet");
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(read(file("j2")), read(file("whole.h5.journal")));
}

// A child that runs `plait ARGUMENTS`.
pid_t start(const std::string& arguments) {
  const pid_t child = fork();
  if (child == 0) {
    const std::string command = cat("cd '", folder().string(), "' && exec '", PLAIT_PROGRAM, "' ", arguments);
    const int null = open("/dev/null", O_RDWR);
    for (const int fd : {0, 1, 2}) dup2(null, fd);
    setenv("OMP_WAIT_POLICY", "passive", 1);
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  return child;
}

int end_of(pid_t child) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(Stream, KilledAtAnyMomentItGoesOnToTheSameBytes) {
  const std::vector<std::string> whole = whole_run();
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(end_of(start(resume("timed"))), 0);
  const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
  Numbers numbers(3);
  int kills = 0, ends = 0;
  while (kills < 50) {
    const pid_t child = start(resume("killed"));
    std::this_thread::sleep_for(
        milliseconds(static_cast<int>(numbers.uniform(0, 1.2 * static_cast<double>(took.count())))));
    kill(child, SIGKILL);
    const int code = end_of(child);
    ASSERT_TRUE(code == 0 || code == 128 + SIGKILL) << code;
    kills += code != 0;
    if (code != 0) continue;
    EXPECT_EQ(files_of("killed"), whole);
    remove_outputs("killed");
    ++ends;
  }
  const Outcome last = plait(resume("killed"));
  ASSERT_EQ(last.code, 0) << last.error;
  EXPECT_EQ(files_of("killed"), whole) << "after " << ends << " whole runs between the kills";
  for (const auto& item : std::filesystem::directory_iterator(folder())) {
    const std::string name = item.path().filename().string();
    EXPECT_FALSE(name.starts_with("killed") && name.ends_with(".tmp")) << name;
  }
}

TEST(Stream, ASignalSavesAndEndsIt) {
  const std::vector<std::string> whole = whole_run();
  for (const int signal : {SIGTERM, SIGINT}) {
    const std::string name = cat("signal", signal);
    // A pipe that stays open: the stream has read its part and waits.
    const Outcome outcome =
        shell(cat("mkfifo p", signal, "; { head -c 3000 ", long_text(), "; exec sleep 30; } > p", signal,
                  " & writer=$!; \"$PLAIT\" stream ", small(), " --quiet --every 512 --in p", signal,
                  outputs(name), " & child=$!; while [ $(stat -c %s ", name,
                  ".h5.journal 2>/dev/null || echo 0) -lt 80000 ]; do "
                  "sleep 0.05; done; kill -",
                  signal, " $child; wait $child; code=$?; kill $writer; exit $code"));
    EXPECT_EQ(outcome.code, 130) << outcome.error;
    EXPECT_TRUE(exists(name + ".snap"));
    EXPECT_TRUE(exists(name + ".h5")) << "what is there is built";
    ASSERT_EQ(plait(resume(name)).code, 0);
    EXPECT_EQ(files_of(name), whole);
  }
}

// A file has one writer whatever it is called, and a link is followed though it leads nowhere yet.
TEST(Stream, ALinkIsTheFileItNames) {
  std::filesystem::create_symlink("linked.snap", file("link.snap"));
  const std::string run = cat("stream ", small(), " --quiet --in ", text(), " --save ");
  ASSERT_EQ(plait(run + "link.snap").code, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(file("link.snap")));
  EXPECT_TRUE(std::filesystem::is_regular_file(file("linked.snap")));
  const WriterLock other(file("linked.snap"));
  expect_error(plait(run + "link.snap --resume"), 3, "'link.snap' is being written by process");
}

TEST(Stream, AFullDiskLeavesWhatCanBeGoneOnWith) {
  const std::vector<std::string> whole = whole_run();
  // The limit, in units of 1024 bytes, is met by the snapshot or by the journal.
  for (const auto& [blocks, part] :
       {std::pair{1, "File too large"}, {20, "disk space"}, {100, "disk space"}}) {
    const std::string name = cat("full", blocks);
    expect_error(shell(cat("ulimit -f ", blocks, "; \"$PLAIT\" ", resume(name))), 3, part);
    ASSERT_EQ(plait(resume(name)).code, 0);
    EXPECT_EQ(files_of(name), whole) << blocks;
  }
  const std::string alone = "stream " + small() + " --quiet --resume --journal full.j --in " + long_text();
  expect_error(shell("ulimit -f 60; \"$PLAIT\" " + alone), 3, "File too large");
  EXPECT_EQ(read(file("full.j")), whole[0].substr(0, 60 * 1024)) << "what fits is there";
  ASSERT_EQ(plait(alone).code, 0);
  EXPECT_EQ(read(file("full.j")), whole[0]);
}

// A process that has its files open and waits for more of a pipe, whose other end is `pipe`.
struct Waiting {
  pid_t process;
  int pipe;
};

Waiting waiting_writer(const std::string& name) {
  EXPECT_EQ(mkfifo(file(name + ".pipe").c_str(), 0600), 0);
  const pid_t process =
      start(cat("stream ", small(), " --quiet --every 512 --in ", name, ".pipe", outputs(name)));
  const int pipe = open(file(name + ".pipe").c_str(), O_WRONLY);
  const std::string part = read(file(long_text())).substr(0, 2100);
  EXPECT_EQ(::write(pipe, part.data(), part.size()), static_cast<ssize_t>(part.size()));
  std::error_code none;
  for (int i = 0; i < 3000 && std::filesystem::file_size(file(name + ".h5.journal"), none) != 84 + 28 * 2099;
       ++i)
    std::this_thread::sleep_for(milliseconds(20));
  return {process, pipe};
}

TEST(Stream, OfTwoWritersTheSecondIsRefusedAndAKilledOneLocksNothing) {
  const std::vector<std::string> whole = whole_run();
  const Waiting first = waiting_writer("two");
  const std::vector<std::string> before = files_of("two");
  const std::string snapshot = read(file("two.snap"));
  for (const auto& [named, options] : {std::pair{"two.snap", "--save two.snap"},
                                       {"two.h5.journal", "--journal two.h5.journal"},
                                       {"two.h5", "--per-token two.h5 --journal two.other"},
                                       {"two.health", "--save two.new --health two.health"}}) {
    const Outcome second =
        plait(cat("stream ", small(), " --quiet --every 512 --resume --in ", long_text(), " ", options));
    expect_error(second, 3, cat("'", named, "' is being written by process ", first.process));
  }
  EXPECT_EQ(files_of("two"), before);
  EXPECT_EQ(read(file("two.snap")), snapshot);
  EXPECT_FALSE(exists("two.new"));
  kill(first.process, SIGKILL);
  EXPECT_EQ(end_of(first.process), 128 + SIGKILL);
  close(first.pipe);
  ASSERT_EQ(plait(resume("two")).code, 0);
  EXPECT_EQ(files_of("two"), whole);
  EXPECT_FALSE(exists("two.snap.lock"));
  EXPECT_FALSE(exists("two.h5.lock"));
  expect_error(plait(cat("stream ", small(), " --in ", text(), " --save x --journal x")), 2, "two outputs");
}

// The word that gives the commands after it file systems of their own; "" where none may be mounted.
std::string own_file_systems() {
  for (const char* word : {"unshare -m", "unshare -rm"})
    if (shell(cat(word, " mount -t tmpfs none /tmp")).code == 0) return word;
  return "";
}

// Runs a script on a file system of 12 MiB at `disk`, in the tests' folder; it ends with what the last
// command ends with.
Outcome on_a_small_disk(const std::string& script) {
  write(file("disk.sh"), cat("set -e\nmount -t tmpfs -o size=12m none disk\n", script));
  return shell(cat("mkdir -p disk && ", own_file_systems(), " bash disk.sh"));
}

TEST(Stream, AFileSystemThatIsFullIsGoneOnWithOnceThereIsRoom) {
  if (own_file_systems().empty()) GTEST_SKIP() << "no file system may be mounted here";
  const std::vector<std::string> whole = whole_run();
  // Where the room ends: the journal, an early snapshot, a later one or the HDF5 file.
  for (const int room : {8, 100, 3000, 5000}) {
    const std::string name = cat("room", room);
    const Outcome outcome = on_a_small_disk(cat(
        "free() { df --output=avail -k disk | tail -1; }\n"
        "head -c $((($(free) - ",
        room, ") * 1024)) /dev/zero > disk/filler\n", "code=0; \"$PLAIT\" ", resume("disk/x"),
        " || code=$?\n[ $code = 3 ]\nls disk | grep -E 'tmp|lock' && exit 8\nrm disk/filler\n", "\"$PLAIT\" ",
        resume("disk/x"), "\n", "for end in h5 h5.journal health; do cp disk/x.$end ", name, ".$end; done"));
    ASSERT_EQ(outcome.code, 0) << room << ": " << outcome.out << outcome.error;
    EXPECT_TRUE(outcome.error.find("No space left on device") != std::string::npos ||
                outcome.error.find("disk space") != std::string::npos)
        << room << ": " << outcome.error;
    EXPECT_EQ(files_of(name), whole) << room;
  }
}

TEST(Stream, AFullOrReadOnlyStoreChangesNothingElse) {
  if (own_file_systems().empty()) GTEST_SKIP() << "no file system may be mounted here";
  const std::string run = "run " + small() + " --prompt-file " + text() + " --seed 3 --threads 1 -n ";
  const std::string plain = plait(run + "8 --quiet").out;
  const Outcome outcome = on_a_small_disk(
      cat("\"$PLAIT\" ", run, "0 --quiet --store disk/s\nmkdir disk/new\n",  // an index, and some entries
          "head -c 20m /dev/zero > disk/filler 2>&- || true\n\"$PLAIT\" ", run, "8 --store disk/new\n",
          "\"$PLAIT\" ", run, "8 --store disk/s\n", "mount -o remount,ro disk\n\"$PLAIT\" ", run,
          "8 --store disk/s\n", "code=0; \"$PLAIT\" stream ", small(), " --quiet --in ", text(),
          " --journal disk/j || code=$?; [ $code = 3 ]\n", "code=0; \"$PLAIT\" stream ", small(),
          " --quiet --in ", text(), " --save disk/s.snap || code=$?; [ $code = 3 ]"));
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(outcome.out, plain + plain + plain);
  for (const char* part : {"not stored: ", "is read-only", "'disk/j' cannot be opened: Read-only file system",
                           "'disk/s.snap': Read-only file system"})
    EXPECT_NE(outcome.error.find(part), std::string::npos) << part << " is not in " << outcome.error;
}

// The time of day jumps, and the files' times are of long ago or to come.
TEST(Stream, TheClockPlaysNoPart) {
  const std::vector<std::string> whole = whole_run();
  const std::string odd =
      "ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 LD_PRELOAD=" PLAIT_JUMPING_CLOCK;
  const Outcome jumps = shell(cat(odd, " date +%Y; ", odd, " date +%Y; date +%Y"));
  ASSERT_NE(jumps.out.substr(0, 4), jumps.out.substr(10, 4)) << "it does jump: " << jumps.out;
  const Outcome outcome =
      shell(cat("head -c 2100 ", long_text(), " > part.txt; ", odd, " \"$PLAIT\" stream ", small(),
                " --quiet --every 512 --in part.txt", outputs("odd"),
                " && touch -d 2090-01-01 odd.snap odd.health && touch -d 1971-01-01 odd.h5.journal && ", odd,
                " \"$PLAIT\" ", resume("odd")));
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(files_of("odd"), whole);
  const std::string run =
      cat("\"$PLAIT\" run ", small(), " --prompt-file ", text(), " -n 0 --json - --quiet --store odd-store");
  EXPECT_EQ(shell(odd + " " + run).json()["store"]["hit"], 0);
  EXPECT_EQ(shell("touch -d 2090-01-01 odd-store/*; " + odd + " " + run).json()["store"]["hit"], 400);
}

TEST(Stream, TornAndDamagedFilesAreMendedOrRefused) {
  const std::vector<std::string> whole = whole_run();
  const auto begun = [&](const std::string& name) {
    remove_outputs(name);
    const Outcome outcome = shell(cat("head -c 2100 ", long_text(), " > part.txt; \"$PLAIT\" stream ",
                                      small(), " --quiet --every 512 --in part.txt", outputs(name)));
    ASSERT_EQ(outcome.code, 0) << outcome.error;
  };
  const auto mends = [&](const std::string& name) {
    const Outcome outcome = plait(resume(name));
    EXPECT_EQ(outcome.code, 0) << outcome.error;
    EXPECT_EQ(files_of(name), whole);
  };
  Numbers numbers(9);
  for (int i = 0; i < 6; ++i) {  // a journal that ends before its snapshot, or within its header
    begun("torn");
    const std::string journal = read(file("torn.h5.journal"));
    const auto bytes = i == 0 ? 40.0 : numbers.uniform(0, static_cast<double>(journal.size()));
    write(file("torn.h5.journal"), journal.substr(0, static_cast<std::size_t>(bytes)));
    mends("torn");
  }
  begun("torn");  // a record that was hit
  std::string journal = read(file("torn.h5.journal"));
  journal[30000] ^= 4;
  write(file("torn.h5.journal"), journal);
  mends("torn");
  begun("torn");  // no snapshot: from the begin
  std::filesystem::remove(file("torn.snap"));
  mends("torn");
  begun("torn");  // the last line of the health cut short
  const std::string health = read(file("torn.health"));
  write(file("torn.health"), health.substr(0, health.size() - 10));
  std::filesystem::remove(file("torn.snap"));
  mends("torn");
  begun("torn");  // a damaged snapshot
  std::string snapshot = read(file("torn.snap"));
  snapshot[snapshot.size() / 2] ^= 1;
  write(file("torn.snap"), snapshot);
  expect_error(plait(resume("torn")), 3, "torn.snap");
  begun("torn");  // a damaged header
  journal = read(file("torn.h5.journal"));
  journal[20] ^= 1;
  write(file("torn.h5.journal"), journal);
  expect_error(plait(resume("torn")), 3, "header");
}

TEST(Stream, ResumesOnlyTheSame) {
  whole_run();
  ASSERT_EQ(plait("new '" PLAIT_SOURCE_DIR "/tests/cli/cards/small.json' other.h5 --seed 8").code, 0);
  const std::string end = cat(" --quiet --every 512 --resume --in ", long_text(), outputs("whole"));
  expect_error(plait("stream other.h5" + end), 3, "model identity");
  expect_error(plait("stream " + small() + " --window 40" + end), 3, "edits");
  expect_error(plait("stream " + small() + " --numerics fast" + end), 3, "arithmetic");
  write(file("else.txt"), cat("E", read(file(long_text())).substr(1)));
  expect_error(plait(cat("stream ", small(), " --quiet --resume --in else.txt", outputs("whole"))), 3,
               "another text");
  expect_error(plait(cat("stream ", small(), " --quiet --resume --in ", text(), outputs("whole"))), 3,
               "token 1 of input 'small.txt'");
  write(file("else.txt"), read(file(long_text())).substr(0, 400));
  expect_error(plait(cat("stream ", small(), " --quiet --resume --in else.txt", outputs("whole"))), 3,
               "ends after 400 tokens");
  expect_error(plait(cat("stream ", small(), " --quiet --in ", long_text(), outputs("whole"))), 3,
               "--resume");
}

// A journal without its snapshot is compared with the text before a byte of it changes.
TEST(Stream, AJournalOfAnotherTextIsLeftAlone) {
  const std::vector<std::string> whole = whole_run();
  const auto refuse = [&](const std::string& changed, const std::string& part) {
    write(file("alone.txt"), changed);
    write(file("alone.h5.journal"), whole[0]);
    write(file("alone.h5"), whole[1]);
    write(file("alone.health"), whole[2]);
    expect_error(
        plait(cat("stream ", small(),
                  " --quiet --resume --every 512 --in alone.txt --per-token alone.h5 --health alone.health")),
        3, part);
    EXPECT_TRUE(files_of("alone") == whole) << part;
  };
  const std::string same = read(file(long_text()));
  std::string late = same;
  late[5000] = late[5000] == 'x' ? 'y' : 'x';
  refuse(cat("E", same.substr(1)), "it is another text");  // which the first record tells of
  refuse(late, "token 5000 of input 'alone.txt' is 120, but 'alone.h5.journal' has");
  refuse(same.substr(0, 3000), "ends after 3000 tokens, but 'alone.h5.journal' has 6000; it is another text");
  // Beside a snapshot of the text the journal of another one is found out as well.
  ASSERT_EQ(plait(cat("stream ", small(), " --quiet --in alone.txt --save alone.snap")).code, 0);
  write(file("alone.txt"), same);
  std::string other = same;
  other[2000] = other[2000] == 'x' ? 'y' : 'x';
  write(file("other.txt"), other);
  ASSERT_EQ(plait(cat("stream ", small(), " --quiet --in other.txt --journal other.j")).code, 0);
  const std::string journal = read(file("other.j"));
  expect_error(
      plait(cat("stream ", small(), " --quiet --resume --in alone.txt --save alone.snap --journal other.j")),
      3, "token 2000 of input 'alone.txt'");
  EXPECT_EQ(read(file("other.j")), journal);
  // Without a journal the losses that were built of it tell.
  std::filesystem::remove(file("alone.h5.journal"));
  write(file("alone.txt"), late);
  expect_error(plait(cat("stream ", small(), " --quiet --resume --in alone.txt --per-token alone.h5")), 3,
               "but 'alone.h5' has");
  EXPECT_TRUE(read(file("alone.h5")) == whole[1]);
  // A loss that was rounded otherwise, as by another machine, is the same loss, and what follows is compared.
  std::string ulp = whole[0];
  const std::size_t record = 84 + 28 * 100;  // tools/stream/README.md
  ulp[record + 8] ^= 1;
  const std::uint32_t crc = crc_of(std::span(ulp).subspan(record, 24));
  ulp.replace(record + 24, 4, reinterpret_cast<const char*>(&crc), 4);
  const std::string alone = cat("stream ", small(), " --quiet --resume --in alone.txt --journal alone.j");
  for (const auto& [text, code] : {std::pair{late, 3}, {same, 0}}) {
    write(file("alone.txt"), text);
    write(file("alone.j"), ulp);
    EXPECT_EQ(plait(alone).code, code);
    EXPECT_TRUE(read(file("alone.j")) == ulp);
  }
}

// A stream whose losses are not numbers is gone on with like any other, and its health says so.
TEST(Stream, LossesThatAreNoNumbersAreGoneOnWith) {
  write(file("nan.json"), R"([{"where": "blocks.0.mixer", "operator": "scale", "value": 1e38}])");
  const std::string run =
      cat("stream ", small(), " --quiet --every 256 --edits nan.json --in ", long_text(), outputs("nan"));
  ASSERT_EQ(plait(run).code, 0);
  const std::vector<std::string> whole = files_of("nan");
  const Json line = Json::parse(whole[2].substr(0, whole[2].find('\n')));
  bool seen = false;
  for (const Json& node : line["nodes"])
    for (const Json& field : node["fields"]) {
      EXPECT_EQ(field["norm"].is_null(), field["largest"].is_null()) << field;
      if (!field["norm"].is_null() || !field.contains("effective_rank")) continue;
      seen = true;
      for (const Json& rank : field["effective_rank"]) EXPECT_NE(rank, 0.0) << field;
    }
  ASSERT_TRUE(seen) << line;
  std::filesystem::remove(file("nan.snap"));
  const Outcome outcome = plait(run + " --resume");
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_TRUE(files_of("nan") == whole);
}

// Ended within the tokens that the next health looks back to, a stream has with its snapshot what it needs.
TEST(Stream, AHealthThatWasBegunIsGoneOnWith) {
  const auto tokens_run = [](const Outcome& outcome) {
    const std::size_t at = outcome.error.find(" tokens in ");
    EXPECT_NE(at, std::string::npos) << outcome.error;
    return std::stol(outcome.error.substr(7, at - 7));
  };
  for (const int every : {512, 128, 64}) {
    const std::string run = cat("stream ", small(), " --every ", every, " --in ");
    remove_outputs("ended");
    remove_outputs("straight");
    ASSERT_EQ(plait(cat(run, long_text(), outputs("straight"))).code, 0);
    write(file("part.txt"), read(file(long_text())).substr(0, 5000));
    ASSERT_EQ(plait(cat(run, "part.txt", outputs("ended"))).code, 0);
    const Outcome outcome = plait(cat(run, long_text(), outputs("ended"), " --resume"));
    ASSERT_EQ(outcome.code, 0) << outcome.error;
    EXPECT_EQ(tokens_run(outcome), 1000) << every;
    EXPECT_TRUE(files_of("ended") == files_of("straight")) << every;
    EXPECT_TRUE(read(file("ended.snap")) == read(file("straight.snap"))) << every;
  }
}

// A stream that goes back leaves the snapshot that is further on.
TEST(Stream, ASnapshotIsNotReplacedByAnEarlierOne) {
  const std::string run = cat("stream ", small(), " --quiet --every 512 --save back.snap --journal back.j ");
  write(file("part.txt"), read(file(long_text())).substr(0, 5000));
  ASSERT_EQ(plait(run + "--in part.txt").code, 0);
  std::filesystem::resize_file(file("back.j"), 84);
  const std::string snapshot = read(file("back.snap"));
  const Outcome outcome = shell(
      cat("mkfifo back.p; { head -c 100 part.txt; exec sleep 30; } > back.p & writer=$!; \"$PLAIT\" ", run,
          "--resume --in back.p & child=$!; while [ $(stat -c %s back.j) -lt 2000 ]; do sleep 0.05; done; "
          "kill -TERM $child; wait $child; code=$?; kill $writer; exit $code"));
  EXPECT_EQ(outcome.code, 130) << outcome.error;
  EXPECT_TRUE(read(file("back.snap")) == snapshot);
  std::string other = read(file("part.txt"));
  other[4900] = other[4900] == 'x' ? 'y' : 'x';
  write(file("other.txt"), other);
  expect_error(plait(run + "--resume --in other.txt"), 3, "token 4900 of input 'other.txt'");
  EXPECT_EQ(plait(run + "--resume --in part.txt").code, 0);
  EXPECT_EQ(stream::LossJournal::read(file("back.j")).size(), 4999u);
}

// The stride that boundaries have grown to is part of a snapshot, though none is left of them.
TEST(Stream, AResumedSnapshotIsThatOfAnUninterruptedRun) {
  for (const char* keep : {"0", "300kB", "2MB"}) {
    const std::string run = cat("stream ", small(), " --quiet --every 256 --window 200 --sinks 3 --keep ",
                                keep, " --resume --in ", long_text());
    remove_outputs("straight");
    remove_outputs("again");
    ASSERT_EQ(plait(cat(run, outputs("straight"))).code, 0);
    for (const int bytes : {700, 1000, 2222, 4100}) {
      write(file("part.txt"), read(file(long_text())).substr(0, static_cast<std::size_t>(bytes)));
      const std::string part = cat("stream ", small(), " --quiet --every 256 --window 200 --sinks 3 --keep ",
                                   keep, " --resume --in part.txt", outputs("again"));
      ASSERT_EQ(plait(part).code, 0);
      const std::string snapshot = read(file("again.snap"));
      ASSERT_EQ(plait(part).code, 0);
      EXPECT_TRUE(read(file("again.snap")) == snapshot) << keep << ", " << bytes;
    }
    ASSERT_EQ(plait(cat(run, outputs("again"))).code, 0);
    EXPECT_TRUE(files_of("again") == files_of("straight")) << keep;
    EXPECT_TRUE(read(file("again.snap")) == read(file("straight.snap"))) << keep;
  }
}

// Where the budget ends nothing of what was scored is lost.
TEST(Stream, WhereMemoryEndsItIsSaved) {
  const std::string run =
      cat("stream ", small(), " --quiet --every 4096 --in ", long_text(), " --save over.snap");
  expect_error(plait(run + " --memory 1MB"), 3, "budget");
  const Json snapshot = plait("inspect over.snap --json -").json();
  EXPECT_GT(snapshot["position"], 0);
  EXPECT_NE(snapshot["position"].get<int>() % 4096, 0);
}

// --resume takes over what is its own, and nothing else.
TEST(Stream, FilesOfOthersAreLeftAlone) {
  const std::string stream =
      cat("stream ", small(), " --quiet --resume --in ", text(), " --journal taken.j ");
  std::filesystem::copy_file(file(small()), file("precious.h5"),
                             std::filesystem::copy_options::overwrite_existing);
  write(file("notes"), "my notes, without a last newline");
  write(file("lines"), "{\"nodes\": 3}\n");
  write(file("part.h5"), read(file(small())).substr(0, 60000));
  write(file("locked.lock"), "notes");
  for (const auto& [flags, name, part] : std::vector<std::tuple<std::string, std::string, std::string>>{
           {"--health notes", "notes", "no health"},
           {"--health lines", "lines", "no health"},
           {"--per-token notes", "notes", "no file of losses"},
           {"--per-token precious.h5", "precious.h5", "no file of losses"},
           {"--save notes", "notes", "notes"},
           {"--per-token part.h5", "part.h5", "no file of losses"},
           {"--save locked", "locked.lock", "'locked.lock'"},
           {"--per-token locked", "locked.lock", "'locked.lock'"}}) {
    const std::string before = read(file(name));
    expect_error(plait(stream + flags), 3, part);
    EXPECT_EQ(read(file(name)), before) << flags;
    EXPECT_FALSE(exists("taken.j")) << flags << ": nothing is begun";
  }
  const Outcome pipe = shell(cat("mkfifo pipe; timeout 20 \"$PLAIT\" ", stream, "--per-token pipe"));
  expect_error(pipe, 3, "not a regular file");
  for (const std::string& name : {text(), small(), cat("./", text())})
    for (const char* flag : {"--save", "--per-token", "--health", "--json"})
      expect_error(plait(cat(stream, flag, " ", name)), 2, "read and written");
  expect_error(plait(stream + "--save ./taken.j"), 2, "two outputs");
  expect_error(plait(stream + "--json taken.j"), 2, "two outputs");
  write(file("s3.lock"), "a text");
  expect_error(plait(cat("stream ", small(), " --in s3.lock --save s3")), 2, "read and written");
  EXPECT_EQ(read(file("s3.lock")), "a text");
  for (const std::string& verb : {cat("score ", small(), " --text ", text(), " --per-token ", text()),
                                  cat("score ", small(), " --text ", text(), " --json ", small()),
                                  cat("run ", small(), " --prompt-file ", text(), " -n 1 --json ", text()),
                                  cat("run ", small(), " --prompt hi -n 1 --save ", small())})
    expect_error(plait(verb), 2, "read and written");
  expect_error(plait(cat("stream ", small(), " --in ", text(), " --per-token a.h5 --save a.h5.journal")), 2,
               "two outputs");
  // The health of another stream.
  const std::string mine = read(file(text()));
  ASSERT_EQ(
      plait(cat("stream ", small(), " --quiet --every 64 --in ", text(), " --health h1 --save s1")).code, 0);
  const std::string health = read(file("h1"));
  expect_error(plait(cat("stream ", small(), " --quiet --every 64 --window 9 --resume --in ", text(),
                         " --health h1 --save s2")),
               3, "belongs to another stream");
  EXPECT_EQ(read(file("h1")), health);
}

// What a killed writer left half-written goes, that of a process which lives stays.
TEST(Stream, HalfWrittenFilesOfTheDeadAreRemoved) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  end_of(child);
  const std::string dead = cat("swept.snap.", child, "-0.tmp"),
                    alive = cat("swept.snap.", getpid(), "-0.tmp"),
                    other = cat("swept.snap.", child, "-0.tmpx");
  for (const std::string& name : {dead, alive, other}) write(file(name), "half");
  ASSERT_EQ(plait(cat("stream ", small(), " --quiet --in ", text(), " --save swept.snap")).code, 0);
  EXPECT_FALSE(exists(dead));
  EXPECT_TRUE(exists(alive));
  EXPECT_TRUE(exists(other));
}

TEST(Stream, AFileThatGrowsIsFollowed) {
  whole_run();
  const Outcome outcome =
      shell(cat("head -c 1000 ", long_text(), " > grows.txt; \"$PLAIT\" stream ", small(),
                " --quiet --follow --in grows.txt --journal j3 & child=$!; sleep 0.3; tail -c +1001 ",
                long_text(), " >> grows.txt; while [ $(stat -c %s j3) -lt ", whole_run()[0].size(),
                " ]; do sleep 0.05; done; kill -TERM $child; wait $child"));
  EXPECT_EQ(outcome.code, 130) << outcome.error;
  EXPECT_EQ(read(file("j3")), whole_run()[0]);
}

TEST(Stream, SeveralInputsGiveWhatEachGivesAlone) {
  whole_run();
  // One that cannot begin is no other's matter.
  const Outcome bad = plait(
      cat("stream ", small(), " --in ", text(), " --in . --in nowhere.txt --out none --json - --quiet"));
  EXPECT_EQ(bad.code, 3);
  EXPECT_EQ(
      bad.error,
      "plait: error: 2 of 3 inputs ended early, '.' because of this: cannot read '.': it is a folder.\n");
  EXPECT_EQ(bad.json()["inputs"][0]["scored"], 399);
  EXPECT_EQ(bad.json()["inputs"][1]["ended"], "failed");
  EXPECT_EQ(stream::LossJournal::read(file("none/small.txt.journal")).size(), 399u);
  EXPECT_FALSE(exists("none/nowhere.txt.journal"));
  const Outcome good = shell(cat("mkfifo slow; { sleep 1; head -c 200 ", long_text(),
                                 "; } > slow & \"$PLAIT\" stream ", small(), " --every 512 --in ",
                                 long_text(), " --in slow --in ", text(), " --out several --json - --quiet"));
  ASSERT_EQ(good.code, 0) << good.error;
  EXPECT_EQ(read(file("several/long-stream.txt.journal")), whole_run()[0]);
  EXPECT_EQ(read(file("several/long-stream.txt.health.jsonl")), whole_run()[2]);
  const auto head = stream::LossJournal::read(file("several/slow.journal"));
  EXPECT_EQ(head.size(), 199u);
  EXPECT_TRUE(
      std::equal(head.begin(), head.end(), stream::LossJournal::read(file("whole.h5.journal")).begin()));
  EXPECT_EQ(good.json()["inputs"].size(), 3u);
}

TEST(Stream, AFailingInputDoesNotHoldUpTheOthers) {
  whole_run();
  // The file is cut while it is followed.
  const Outcome outcome = shell(
      cat("cp ", text(), " cut.txt; \"$PLAIT\" stream ", small(), " --every 512 --follow --in cut.txt --in ",
          long_text(),
          " --out cuts --json - & child=$!; while [ $(stat -c %s cuts/cut.txt.journal "
          "2>/dev/null || echo 0) -lt 10000 ]; do sleep 0.05; done; : > cut.txt; while [ $(stat -c %s cuts/",
          long_text(), ".journal) -lt ", whole_run()[0].size(),
          " ]; do sleep 0.05; done; sleep 0.5; kill -TERM $child; wait $child"));
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.error.find("was cut to 0 bytes"), std::string::npos) << outcome.error;
  EXPECT_EQ(read(file("cuts/long-stream.txt.journal")), whole_run()[0]);
}

// The others have ended, with all their files, before the held input gives its first byte.
TEST(Stream, AHeldInputHoldsUpNobody) {
  whole_run();
  const Outcome outcome = shell(
      cat("mkfifo late; \"$PLAIT\" stream ", small(), " --quiet --every 512 --in late --in ", long_text(),
          " --in ", text(), " --out lates & child=$!; exec 9> late; while [ ! -e lates/", long_text(),
          ".snapshot.h5 ] || [ ! -e lates/", long_text(), ".h5 ] || [ ! -e lates/", text(),
          ".h5 ]; do sleep 0.05; done; [ $(stat -c %s lates/late.journal) -lt 200 ] || exit 9; head -c 200 ",
          long_text(), " >&9; exec 9>&-; wait $child"));
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(read(file("lates/" + long_text() + ".journal")), whole_run()[0]);
  EXPECT_EQ(stream::LossJournal::read(file("lates/late.journal")).size(), 199u);
}

TEST(Stream, AnInputThatEndsIsFinishedWhileOthersGoOn) {
  const Outcome outcome = shell(cat(
      "mkfifo held; sleep 60 > held & writer=$!; \"$PLAIT\" stream ", small(), " --quiet --in held --in ",
      long_text(), " --out ends & child=$!; for i in $(seq 500); do [ -e ends/", long_text(),
      ".h5 ] && break; sleep 0.05; done; kill -TERM $child; wait $child; code=$?; kill $writer; exit $code"));
  EXPECT_EQ(outcome.code, 130) << outcome.error;
  EXPECT_TRUE(exists("ends/long-stream.txt.h5"));
  EXPECT_EQ(read(file("ends/long-stream.txt.journal")), whole_run()[0]);
}

// A stream has a digest of most tokens; with --keep it goes back to a boundary, else to the begin.
TEST(Stream, AJournalThatEndsEarlyIsCaughtUpWithFromABoundary) {
  const std::vector<std::string> whole = whole_run();
  remove_outputs("kept");
  const std::string keep = " --keep 64MB";
  ASSERT_EQ(shell(cat("head -c 4200 ", long_text(), " > part.txt; \"$PLAIT\" stream ", small(),
                      " --quiet --every 512 --in part.txt", keep, outputs("kept")))
                .code,
            0);
  const std::string journal = read(file("kept.h5.journal"));
  write(file("kept.h5.journal"), journal.substr(0, journal.size() / 2));
  const Outcome outcome = plait(cat(resume("kept"), keep, " --json -"));
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(files_of("kept"), whole);
}

TEST(Stream, WhatNeedsAllTokensSaysThatTheyAreNotThere) {
  ASSERT_EQ(plait(cat("stream ", small(), " --quiet --in ", long_text(), " --save few.snap")).code, 0);
  const Json inspected = plait("inspect few.snap --json -").json();
  EXPECT_EQ(inspected["position"], 6000);
  EXPECT_LT(inspected["tokens_kept"], 1024);
  const std::string run = cat("run ", small(), " --load few.snap --numerics exact -n 2 --prompt x --quiet ");
  EXPECT_EQ(plait(run).code, 0);
  expect_error(plait(run + "--repetition-penalty 1.2"), 3, "looks at all of them");
  expect_error(plait(run + "--store few"), 3, "whole texts");
  const Json resent =
      plait(
          cat("run ", small(), " --load few.snap -n 0 --resend --json - --quiet --prompt-file ", long_text()))
          .json();
  EXPECT_EQ(resent["prompt_tokens_run"], 0) << "the digest tells that the text is the same";
}

TEST(Stream, TheFileOfLossesStandsAtTheEndHoweverLittleWasScored) {
  const std::vector<std::string> whole = whole_run();
  remove_outputs("again");
  ASSERT_EQ(plait(resume("again")).code, 0);
  const std::string complete = read(file("again.h5"));
  write(file("again.h5"), complete.substr(0, 99));  // as if killed between the snapshot and it
  ASSERT_EQ(plait(resume("again")).code, 0);
  EXPECT_EQ(files_of("again"), whole) << "this run scored no token";
  ASSERT_EQ(plait(cat("stream ", small(), " --quiet --in /dev/null --per-token none.h5")).code, 0);
  EXPECT_TRUE(exists("none.h5"));
}

TEST(Stream, GoesOnFromASnapshot) {
  const std::string whole = long_text();
  ASSERT_EQ(shell(cat("head -c 1500 ", whole, " > a.txt; tail -c +1501 ", whole, " > b.txt")).code, 0);
  ASSERT_EQ(plait(cat("stream ", small(), " --quiet --in a.txt --save a.snap --journal a.j")).code, 0);
  ASSERT_EQ(
      plait(cat("stream ", small(), " --quiet --in b.txt --load a.snap --save b.snap --journal b.j")).code,
      0);
  whole_run();
  std::vector<stream::Loss> both = stream::LossJournal::read(file("a.j"));
  for (const stream::Loss& loss : stream::LossJournal::read(file("b.j"))) both.push_back(loss);
  EXPECT_EQ(both, stream::LossJournal::read(file("whole.h5.journal")));
}

// `plait run` is fast unless it is told otherwise, `plait stream` exact: a snapshot says what it needs.
TEST(Stream, GoesOnInTheNumericsOfASnapshot) {
  ASSERT_EQ(plait(cat("run ", small(), " --quiet --prompt-file ", text(), " -n 0 --save run.snap")).code, 0);
  const std::string stream = cat("stream ", small(), " --quiet --in ", text(), " --load run.snap ");
  const Outcome outcome = plait(stream + "--json -");
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(outcome.json()["numerics"], "fast");
  expect_error(plait(stream + "--numerics exact"), 3,
               "snapshot 'run.snap' was saved with fast numerics, but --numerics says exact");
  expect_error(plait(stream + "--window 9"), 3, "'run.snap': ");
}

TEST(Stream, AWindowIsReportedAsAnIntervention) {
  const Json json =
      plait(cat("stream ", small(), " --in ", long_text(), " --window 64 --sinks 4 --json - --quiet")).json();
  ASSERT_EQ(json["edits"].size(), 2u);
  EXPECT_EQ(json["edits"][1]["operator"], "set");
  EXPECT_EQ(json["edits"][1]["value"], 64.0);
  EXPECT_EQ(json["edits"][1]["sinks"], 4);
  const Json score =
      plait(cat("score ", small(), " --text ", long_text(), " --window 64 --sinks 4 --json - --quiet"))
          .json();
  EXPECT_EQ(score["edits"], json["edits"]);
  EXPECT_EQ(score["nll"], json["inputs"][0]["nll"]);
  EXPECT_EQ(score["state_bytes"], json["inputs"][0]["state_bytes"]);
  // Shorter by whole pages and chunks, and still longer than the window.
  write(file("shorter.txt"), read(file(long_text())).substr(0, 6000 - 80 * 64));
  const Json shorter =
      plait(cat("score ", small(), " --text shorter.txt --window 64 --sinks 4 --json - --quiet")).json();
  EXPECT_EQ(shorter["state_bytes"], score["state_bytes"]);
  expect_error(plait(cat("score ", small(), " --text ", text(), " --sinks 4")), 2, "--window");
  // Its memory is known before.
  const std::string inspect = cat("inspect ", small(), " --window 64 --sinks 4 ");
  const Json inspected = plait(inspect + "--state --at 6000 --at 640006000 --json -").json();
  for (const Json& predicted : inspected["stream_bytes"])
    EXPECT_EQ(predicted["bytes"], json["inputs"][0]["state_bytes"]) << predicted["tokens"];
  EXPECT_EQ(inspected["bytes_per_token"], 0);
  EXPECT_NE(plait(inspect).out.find("the state does not grow"), std::string::npos);
  ASSERT_EQ(plait(cat("stream ", small(), " --quiet --in ", text(), " --save plain.snap")).code, 0);
  expect_error(plait("inspect plain.snap --window 64"), 2, "takes no --window");
}

// Copies of the state 256 tokens before the next health are memory, too.
TEST(Stream, HealthsCopiesAreCounted) {
  const auto input = [](const std::string& flags) {
    return plait(cat("stream ", small(), " --quiet --every 512 --in ", long_text(), " --json - ", flags))
        .json()["inputs"][0];
  };
  const Json with = input("--health counted"), without = input("");
  EXPECT_EQ(without["health_bytes"], 0);
  EXPECT_GT(with["health_bytes"], 0);
  EXPECT_LE(with["health_bytes"], with["state_bytes"]) << "one copy";
}

TEST(Stream, HealthSaysWhatTheStateIs) {
  const std::string health = whole_run()[2];
  EXPECT_EQ(std::count(health.begin(), health.end(), '\n'), 6000 / 512);
  const Json line = Json::parse(health.substr(0, health.find('\n')));
  EXPECT_EQ(line["position"], 512);
  const Json& node = line["nodes"][0];
  EXPECT_EQ(node["node"], "blocks.0.mixer");
  for (const Json& field : node["fields"]) {
    EXPECT_GT(field["norm"], 0.0);
    EXPECT_GE(field["norm"], field["largest"]);
    if (field["field"] != "S") continue;
    ASSERT_EQ(field["effective_rank"].size(), 2u);
    for (const Json& rank : field["effective_rank"]) {
      EXPECT_GE(rank, 1.0);
      EXPECT_LE(rank, 32.0);
    }
  }
  const double share =
      node["decays"]["keeps_all"].get<double>() + node["decays"]["keeps_nothing"].get<double>();
  EXPECT_GE(share, 0.0);
  EXPECT_LE(share, 1.0);
  EXPECT_GE(line["remembrance"]["16"], 0.0);
  EXPECT_GT(line["remembrance"]["16"], line["remembrance"]["256"]) << "more history, less to miss";
}

TEST(Stream, ResendingTheSavedPromptRunsNothing) {
  const std::string prompt = " --prompt-file " + long_text() + " -n 0 --json - --quiet";
  ASSERT_EQ(plait("run " + small() + prompt + " --save resent.snap").code, 0);
  const Json same =
      plait("run " + small() + prompt + " --load resent.snap --resend --save again.snap").json();
  EXPECT_EQ(same["prompt_tokens"], 6000);
  EXPECT_EQ(same["prompt_tokens_run"], 0);
  EXPECT_EQ(same["position"], 6000);
  EXPECT_EQ(read(file("again.snap")), read(file("resent.snap")));
  expect_error(plait("run " + small() + prompt + " --resend"), 2, "--load");
}

TEST(Stream, WrongUseIsRefused) {
  expect_error(plait(cat("stream ", small(), " --in nowhere")), 3, "nowhere");
  expect_error(plait(cat("stream ", small(), " --in ", text(), " --in ", long_text(), " --save x")), 2,
               "--out");
  expect_error(plait(cat("stream ", small(), " --in ", text(), " --resume")), 2, "--save");
  expect_error(plait(cat("stream ", small(), " --in ", text(), " --every 0")), 2, "--every");
  expect_error(plait(cat("stream ", small(), " --in ", long_text(), " --journal ", text())), 3, "--resume");
  expect_error(plait(cat("stream ", small(), " --resume --in ", long_text(), " --journal ", text())), 3,
               "no journal");
  expect_error(plait(cat("stream ", small(), " --in ''")), 3, "''");
  for (const char* keep : {"-5", "lots", "0x10", "18446744073709551617"})
    expect_error(plait(cat("stream ", small(), " --in ", text(), " --keep ", keep)), 2, "--keep");
  expect_error(plait(cat("stream ", small(), " --in ", text(), " --memory -5")), 2, "--memory");
  expect_error(plait(cat("stream ", small(), " --resume --in ", text(), " --journal /dev/zero")), 3,
               "it is a device or pipe");
}

}  // namespace
}  // namespace plait
