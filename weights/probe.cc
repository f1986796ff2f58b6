#include "weights/probe.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <new>

#include "runtime/base/error.h"
#include "weights/resources.h"

namespace plait {
namespace {

// What the child sends: any number of kAlive, then kGood, or kBad and its sentence.
constexpr char kAlive = '.', kGood = '+', kBad = '!';
constexpr std::uint64_t kBytesPerSecond = std::uint64_t{8} << 20;
constexpr std::size_t kMaxSentence = 4096;

void send(int fd, const char* data, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t done = ::write(fd, data, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) ::_exit(1);  // nobody listens any more
    data += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

void limit(int resource, rlim_t value) {
  rlimit old{};
  ::getrlimit(static_cast<__rlimit_resource>(resource), &old);
  old.rlim_cur = std::min(value, old.rlim_max);
  ::setrlimit(static_cast<__rlimit_resource>(resource), &old);
}

std::uint64_t address_space() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

// The program's handlers are not the child's (one of them removes the parent's temporary files); nothing it
// says or drops may reach the user; it does not outlive its parent.
void become_expendable(pid_t parent) {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  ::prctl(PR_SET_DUMPABLE, 0);
  const int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd <= 2; ++fd) ::dup2(null, fd);
}

[[noreturn]] void child(int out, pid_t parent, const std::function<void(const h5::Beat&)>& walk,
                        const ProbeLimits& limits) {
  become_expendable(parent);
  if (kProbeBoundsMemory) limit(RLIMIT_AS, address_space() + limits.memory);
  limit(RLIMIT_CPU, limits.cpu_seconds);
  std::uint64_t read = 0;
  const h5::Beat beat = [&](std::uint64_t bytes) {
    const std::uint64_t before = read / kBytesPerSecond;
    read += bytes;
    if (read / kBytesPerSecond != before) limit(RLIMIT_CPU, limits.cpu_seconds + read / kBytesPerSecond);
    send(out, &kAlive, 1);
  };
  std::string verdict(1, kGood);
  try {
    walk(beat);
  } catch (const std::bad_alloc&) {
    verdict.clear();
  } catch (const std::exception& error) {
    verdict = kBad + std::string(error.what()).substr(0, kMaxSentence);
  }
  if (verdict.empty())
    verdict = cat(kBad, "reading it takes more than ", byte_text(limits.memory), " of memory");
  send(out, verdict.data(), verdict.size());
  ::_exit(0);  // no exit handlers: they are the parent's
}

// Why a child without a verdict ended.
std::string cause(int status, bool stalled, const ProbeLimits& limits) {
  if (stalled) return cat("nothing could be read from it for ", limits.stall_seconds, " seconds");
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU) return "reading it does not come to an end";
  if (WIFSIGNALED(status))
    return cat("reading it ends with signal ", WTERMSIG(status), " (", ::strsignal(WTERMSIG(status)), ")");
  return "reading it ends without a result";
}

// Everything the child says until it closes the pipe; true if it fell silent for too long.
bool listen(int in, unsigned stall_seconds, std::string& verdict) {
  using Clock = std::chrono::steady_clock;
  auto deadline = Clock::now() + std::chrono::seconds(stall_seconds);
  char buffer[4096];
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd wait{in, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::max<decltype(left)>(left, 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return true;
    const ssize_t got = ::read(in, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    deadline = Clock::now() + std::chrono::seconds(stall_seconds);
    const std::string_view said(buffer, static_cast<std::size_t>(got));
    if (!verdict.empty())
      verdict += said;
    else if (const auto at = said.find_first_not_of(kAlive); at != said.npos)
      verdict = said.substr(at);
  }
}

// Signals are held back over the fork, so that the child never runs the parent's handlers.
pid_t fork_quietly(int out, const std::function<void(const h5::Beat&)>& walk, const ProbeLimits& limits) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid == 0) child(out, parent, walk, limits);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return pid;
}

}  // namespace

void probe(const std::string& path, const std::function<void(const h5::Beat&)>& walk,
           const ProbeLimits& limits) {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) fail("cannot examine file '", path, "': ", std::strerror(errno));
  pid_t pid = -1;
  {
    const h5::Guard guard;  // no other thread is inside the library when the child is made
    pid = fork_quietly(pipe[1], walk, limits);
  }
  const int error = errno;
  ::close(pipe[1]);
  if (pid < 0) {
    ::close(pipe[0]);
    fail("cannot examine file '", path, "': ", std::strerror(error));
  }
  std::string verdict;
  const bool stalled = listen(pipe[0], limits.stall_seconds, verdict);
  ::close(pipe[0]);
  if (stalled) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!stalled && verdict == std::string(1, kGood)) return;
  if (!stalled && verdict.size() > 1 && verdict[0] == kBad) {
    const std::string sentence = verdict.substr(1);
    throw Error(sentence.find(path) == std::string::npos ? cat("file '", path, "' is damaged: ", sentence)
                                                         : sentence);
  }
  fail("file '", path, "' is damaged: ", cause(status, stalled, limits));
}

}  // namespace plait
