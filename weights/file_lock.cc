#include "weights/file_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>

#include "runtime/base/error.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

// A killed writer may leave a child that reads a file for it (weights/probe.h); that dies with its parent,
// but not at once.
constexpr std::chrono::milliseconds kPatience{500};

// The system lists locks: "1: FLOCK  ADVISORY  WRITE 12 fe:00:2147290 0 EOF".
std::string holder_of(int descriptor) {
  struct stat stats {};
  std::ifstream locks("/proc/locks");
  if (::fstat(descriptor, &stats) == 0)
    for (std::string line; std::getline(locks, line);) {
      unsigned device[2];
      unsigned long long file = 0;
      int process = 0;
      if (std::sscanf(line.c_str(), "%*s FLOCK %*s WRITE %d %x:%x:%llu", &process, &device[0], &device[1],
                      &file) == 4 &&
          process > 0 && device[0] == major(stats.st_dev) && device[1] == minor(stats.st_dev) &&
          file == stats.st_ino)
        return cat("process ", process);
    }
  return "another process";
}

// False if `path` names another file than the open one by now.
bool still_named(int descriptor, const std::string& path) {
  struct stat open {
  }, named{};
  return ::fstat(descriptor, &open) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

// What is not empty is no lock, but somebody's file.
void check_empty(int descriptor, const std::string& name) {
  struct stat stats {};
  if (::fstat(descriptor, &stats) != 0 || !S_ISREG(stats.st_mode) || stats.st_size > 0)
    fail("'", name, "', which would be the lock, is there already and is none");
}

}  // namespace

bool lock_file(int descriptor, int how, std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (::flock(descriptor, how | LOCK_NB) != 0) {
    if ((errno != EWOULDBLOCK && errno != EINTR) || std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

void lock_for_writing(int descriptor, const std::string& path) {
  if (!lock_file(descriptor, LOCK_EX, kPatience) && errno == EWOULDBLOCK)
    fail("'", path, "' is being written by ", holder_of(descriptor));
}

std::string WriterLock::name_for(const std::string& path) { return file_named(path) + ".lock"; }

WriterLock::WriterLock(const std::string& path) : name_(name_for(path)) {
  for (;;) {
    descriptor_ = ::open(name_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0) fail("cannot write file '", path, "': ", std::strerror(errno));
    try {
      check_empty(descriptor_, path + ".lock");
      lock_for_writing(descriptor_, path);
    } catch (...) {
      ::close(descriptor_);
      throw;
    }
    if (still_named(descriptor_, name_)) return;
    ::close(descriptor_);  // the one before removed it as we opened it
  }
}

WriterLock::~WriterLock() {
  ::unlink(name_.c_str());  // before the lock goes: nobody else's is removed
  ::close(descriptor_);
}

}  // namespace plait
