// Several inputs of `plait stream` at once, one of them held: how many tokens per second the others get, with
// the held input and without. bench_streams --help lists the flags.
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "bench/program.h"
#include "runtime/base/error.h"
#include "runtime/graph/config.h"
#include "tests/files.h"

namespace plait {
namespace {

namespace fs = std::filesystem;
using testing::Folder;

struct Settings {
  BenchFlags flags;
  std::string model = PLAIT_SOURCE_DIR "/weights/models/tiny-hybrid.h5";
  Index others = 2;
  double hold = 60;  // seconds
};

// Longer than anybody reads in the time: 1 MB per second, five times what the bundled model takes in.
void write_text(const std::string& path, double seconds) {
  std::ofstream file(path);
  for (double bytes = 0; bytes < (seconds + 5) * 1e6;) {
    const std::string line = cat("line ", static_cast<Index>(bytes), " of a text that goes on and on\n");
    file << line;
    bytes += static_cast<double>(line.size());
  }
}

pid_t start(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t quiet;
  ::posix_spawn_file_actions_init(&quiet);
  ::posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, PLAIT_PROGRAM, &quiet, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&quiet);
  if (error != 0) fail("cannot start '", PLAIT_PROGRAM, "'");
  return child;
}

// Tokens per second of the inputs that are not held, all together, in `seconds` of a run.
double rate(const Settings& s, const Folder& folder, bool held) {
  std::vector<std::string> arguments = {PLAIT_PROGRAM, "stream",
                                        s.model,       "--quiet",
                                        "--json",      folder / "out.json",
                                        "--threads",   std::to_string(s.flags.threads)};
  for (Index i = 0; i < s.others; ++i) arguments.insert(arguments.end(), {"--in", folder / cat(i, ".txt")});
  int pipe = -1;
  if (held) {
    const std::string path = folder / "held";
    if (::mkfifo(path.c_str(), 0600) != 0) fail("cannot make the pipe '", path, "'");
    pipe = ::open(path.c_str(), O_RDWR | O_CLOEXEC);  // a writer that writes nothing
    arguments.insert(arguments.end(), {"--in", path});
  }
  const pid_t child = start(arguments);
  std::this_thread::sleep_for(std::chrono::duration<double>(s.hold));
  ::kill(child, SIGTERM);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (pipe >= 0) ::close(pipe);
  fs::remove(folder / "held");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 130) fail("`plait stream` ended before it was stopped");
  std::ifstream file(folder / "out.json");
  const Json json = Json::parse(file);
  Index tokens = 0;
  for (Index i = 0; i < s.others; ++i)
    tokens += json["inputs"][static_cast<std::size_t>(i)]["tokens"].get<Index>();
  if (held && json["inputs"].back()["tokens"] != 0) fail("the held input was not held");
  return static_cast<double>(tokens) / json["seconds"].get<double>();
}

void report(const Settings& s) {
  const Folder folder;
  for (Index i = 0; i < s.others; ++i) write_text(folder / cat(i, ".txt"), s.hold);
  double alone = 0, beside = 0;
  for (Index repeat = 0; repeat < s.flags.repeat; ++repeat) {
    alone = std::max(alone, rate(s, folder, false));
    beside = std::max(beside, rate(s, folder, true));
  }
  std::printf("%td inputs, %.0f s, %d threads, best of %td\n", s.others, s.hold, s.flags.threads,
              s.flags.repeat);
  std::printf("nothing held     %9.0f tokens/s\n", alone);
  std::printf("one more, held   %9.0f tokens/s  %.3f of that  (target: at least 0.90)\n", beside,
              beside / alone);
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::Settings s;
  CLI::App app("Tokens per second of several streams, with and without an input that is held.",
               "bench_streams");
  app.add_option("MODEL", s.model, "A model file (default: the bundled model)");
  app.add_option("--others", s.others, "Inputs that are not held")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--hold", s.hold, "Seconds that the input is held")
      ->check(CLI::Range(0.5, 3600.0))
      ->capture_default_str();
  s.flags.repeat = 1;
  s.flags.add_to(app);
  return plait::run_bench(app, argc, argv, [&] {
    if (s.flags.smoke) s.hold = 1, s.flags.repeat = 1;
    plait::report(s);
  });
}
