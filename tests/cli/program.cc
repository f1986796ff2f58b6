#include "tests/cli/program.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "runtime/base/error.h"

namespace plait::testing {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kTextBytes =
    400;  // past the key span (128), many chunks and the window of the small model

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "plait-cli-XXXXXX").string();
    if (!mkdtemp(name.data())) std::abort();
    path = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
    fs::remove_all(path.string() + "-talk", ignored);
  }
};

std::string made(const std::string& name, const std::string& arguments) {
  if (!exists(name)) {
    const Outcome outcome =
        plait("new '" PLAIT_SOURCE_DIR "/tests/cli/cards/small.json' " + name + " " + arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.error;
  }
  return name;
}

}  // namespace

const fs::path& folder() {
  static const Folder folder;
  return folder.path;
}

std::string file(const std::string& name) { return (folder() / name).string(); }
bool exists(const std::string& name) { return fs::exists(folder() / name); }

int count_files() {
  return static_cast<int>(std::distance(fs::directory_iterator(folder()), fs::directory_iterator()));
}

std::string read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

void write(const std::string& path, const std::string& bytes) {
  std::ofstream stream(path, std::ios::binary);
  stream << bytes;
  ASSERT_TRUE(stream.good()) << path;
}

Outcome shell(const std::string& shell_command) {
  static const fs::path talk = [] {
    const fs::path path = folder().string() + "-talk";
    fs::create_directory(path);
    return path;
  }();
  const std::string out = (talk / "out").string(), error = (talk / "error").string();
  const std::string command =
      cat("cd '", folder().string(), "' && export PLAIT='", PLAIT_PROGRAM, "' OMP_WAIT_POLICY=passive && { ",
          shell_command, "\n} >'", out, "' 2>'", error, "' </dev/null");
  const int status = std::system(("bash -c '" +
                                  [&] {
                                    std::string quoted;
                                    for (const char c : command)
                                      quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
                                    return quoted;
                                  }() +
                                  "'")
                                     .c_str());
  Outcome outcome;
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = read(out);
  outcome.error = read(error);
  return outcome;
}

Outcome plait(const std::string& arguments) { return shell("\"$PLAIT\" " + arguments); }

Json Outcome::json() const {
  Json json = Json::parse(out, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << "no JSON: " << out << error;
  return json.is_discarded() ? Json() : json;
}

std::string small() { return made("small.h5", "--seed 7"); }
std::string narrow() { return made("narrow.h5", "--seed 7 --dtype bf16"); }

std::string text() {
  if (!exists("small.txt")) {
    std::string words;
    for (int i = 0; words.size() < kTextBytes; ++i)
      words += cat("line ", i * i, " of a text that goes on;\n");
    words.resize(kTextBytes);
    write(file("small.txt"), words);
  }
  return "small.txt";
}

void expect_error(const Outcome& outcome, int code, const std::string& part) {
  EXPECT_EQ(outcome.code, code) << outcome.error;
  EXPECT_EQ(outcome.out, "");
  EXPECT_TRUE(outcome.error.starts_with("plait: error: ")) << outcome.error;
  EXPECT_EQ(outcome.error.find('\n'), outcome.error.size() - 1) << "more than one line: " << outcome.error;
  EXPECT_NE(outcome.error.find(part), std::string::npos) << "'" << part << "' is not in: " << outcome.error;
}

}  // namespace plait::testing
