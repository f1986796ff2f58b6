// plait run --chat on a terminal: Ctrl-C ends a reply, at the prompt it ends the program, Ctrl-D ends the
// conversation.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <vector>

#include "tests/cli/program.h"

namespace plait {
namespace {

using namespace testing;

constexpr const char* kCtrlC = "\x03";
constexpr const char* kCtrlD = "\x04";

// The program on a terminal of its own.
class Terminal {
 public:
  explicit Terminal(std::vector<std::string> arguments) {
    terminal_ = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal_ < 0 || grantpt(terminal_) != 0 || unlockpt(terminal_) != 0) return;
    const std::string other_end = ptsname(terminal_);
    std::vector<char*> argv = {const_cast<char*>("plait")};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    child_ = fork();
    if (child_ != 0) return;
    setsid();
    const int end = open(other_end.c_str(), O_RDWR);  // the first one a session opens is its terminal
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(end, stream);
    if (end > STDERR_FILENO) close(end);
    if (chdir(folder().c_str()) == 0) execv(PLAIT_PROGRAM, argv.data());
    _exit(99);
  }
  ~Terminal() {
    if (child_ > 0 && code_ < 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    close(terminal_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(const std::string& keys) {
    ASSERT_EQ(::write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  // Reads on until `text` and so many bytes behind it have come; forgets them.
  void wait_for(const std::string& text, std::size_t behind = 0) {
    const auto come = [&] {
      const std::size_t at = shown_.find(text);
      return at != std::string::npos && shown_.size() >= at + text.size() + behind;
    };
    while (!come() && !late()) read_some();
    EXPECT_TRUE(come()) << "'" << text << "' and " << behind << " bytes more are not in: " << shown_;
    shown_.clear();
  }
  // Types the key until the program has ended: the first may still meet the reply. Returns the exit code.
  int end_with(const std::string& key) {
    int status = 0;
    while (!late()) {
      if (waitpid(child_, &status, WNOHANG) == child_)
        return code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      if (::write(terminal_, key.data(), key.size()) < 0) break;
      read_some();
    }
    return -1;
  }

 private:
  bool late() const { return std::chrono::steady_clock::now() > deadline_; }
  void read_some() {
    pollfd ready = {terminal_, POLLIN, 0};
    char bytes[4096];
    if (poll(&ready, 1, 100) <= 0) return;
    const ssize_t n = ::read(terminal_, bytes, sizeof bytes);
    if (n > 0) shown_.append(bytes, static_cast<std::size_t>(n));
  }

  int terminal_ = -1, code_ = -1;
  pid_t child_ = -1;
  std::string shown_;
  std::chrono::steady_clock::time_point deadline_ =
      std::chrono::steady_clock::now() + std::chrono::minutes(2);
};

// A model with a template, and a conversation whose replies have no end.
std::vector<std::string> endless(const std::string& json) {
  const std::string folder_name = "endless";
  if (!exists("endless.h5")) {
    EXPECT_EQ(plait("convert " + small() + " " + folder_name + " --quiet").code, 0);
    write(file("endless/chat_template.jinja"), "{% for m in messages %}{{ m.content }}|{% endfor %}");
    EXPECT_EQ(plait("convert endless endless.h5 --quiet").code, 0);
  }
  return {"run",       "endless.h5", "--chat", "-n", "100000000", "--temperature", "0",
          "--threads", "1",          "--json", json, "--save",    json + ".h5"};
}

// From one prompt to the next.
void interrupt_a_reply(Terminal& terminal) {
  terminal.type("hello\n");
  terminal.wait_for("hello\r\n", 1);
  terminal.type(kCtrlC);
  terminal.wait_for("\r\n> ");
}

TEST(ChatOnATerminal, AnInterruptEndsTheReplyAndTheNextTurnFollows) {
  Terminal terminal(endless("interrupted.json"));
  terminal.wait_for("> ");
  interrupt_a_reply(terminal);
  interrupt_a_reply(terminal);
  EXPECT_EQ(terminal.end_with(kCtrlD), 0);
  const Json talk = Json::parse(read(file("interrupted.json")));
  ASSERT_EQ(talk["turns"].size(), 2u);
  for (const Json& turn : talk["turns"]) EXPECT_EQ(turn["stopped"], "interrupt");
  EXPECT_TRUE(exists("interrupted.json.h5"));
}

TEST(ChatOnATerminal, AnInterruptAtThePromptLeavesNothing) {
  Terminal terminal(endless("left.json"));
  terminal.wait_for("> ");
  interrupt_a_reply(terminal);
  const int before = count_files();
  EXPECT_EQ(terminal.end_with(kCtrlC), 130);
  EXPECT_EQ(count_files(), before);
  EXPECT_FALSE(exists("left.json"));
}

}  // namespace
}  // namespace plait
