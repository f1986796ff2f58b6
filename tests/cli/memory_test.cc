// The memory of a run does not grow with its prompt where the states do not.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cli/program.h"

namespace plait {
namespace {

using namespace testing;

// Largest resident memory of `plait ARGUMENTS`, in bytes.
long peak_bytes(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  arguments.insert(arguments.begin(), PLAIT_PROGRAM);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    setenv("OMP_WAIT_POLICY", "passive", 1);
    // The address sanitizer keeps freed memory aside, up to 256 MB of it: it would be counted as growth.
    setenv("ASAN_OPTIONS", "quarantine_size_mb=0:thread_local_quarantine_size_kb=0", 1);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  EXPECT_EQ(wait4(child, &status, 0, &usage), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return usage.ru_maxrss * 1024L;
}

TEST(Memory, DoesNotGrowWithThePrompt) {
  const Outcome made =
      plait("new '" PLAIT_SOURCE_DIR "/tests/cli/cards/streaming.json' streaming.h5 --seed 1");
  ASSERT_EQ(made.code, 0) << made.error;
  const auto peak = [](const std::string& name, std::size_t bytes) {
    write(file(name), std::string(bytes, 'a'));
    return peak_bytes({"score", file("streaming.h5"), "--text", file(name)});
  };
  constexpr long kShort = 4000, kLong = 40000;
  const long growth = peak("long.txt", kLong) - peak("short.txt", kShort);
  // A token may cost its text byte, its ids and its loss, a few copies of each; one row of the narrowest
  // activation alone would be 64 floats.
  EXPECT_LT(growth, (kLong - kShort) * 64 * 4 / 2);
}

TEST(Memory, OfAStreamDoesNotGrowWithItsText) {
  ASSERT_EQ(plait("new '" PLAIT_SOURCE_DIR "/tests/cli/cards/streaming.json' endless.h5 --seed 1").code, 0);
  const auto peak = [](const std::string& name, std::size_t bytes) {
    write(file(name), std::string(bytes, 'a'));
    return peak_bytes({"stream", file("endless.h5"), "--in", file(name), "--quiet"});
  };
  constexpr long kShort = 20'000, kLong = 600'000;
  const long growth = peak("endless-long.txt", kLong) - peak("endless-short.txt", kShort);
  // Half of what the ids of the tokens alone would take.
  EXPECT_LT(growth, (kLong - kShort) * 4 / 2);
}

}  // namespace
}  // namespace plait
