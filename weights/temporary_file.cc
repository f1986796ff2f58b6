#include "weights/temporary_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "runtime/base/error.h"

namespace plait {
namespace {

// Fixed storage, because a signal handler reads it. A name is written before its slot is armed and disarmed
// only after the file is gone or renamed.
enum SlotState { kFree, kTaken, kArmed };
struct Slot {
  std::atomic<int> state{kFree};
  char path[PATH_MAX] = {};
};
Slot slots[32];
static_assert(std::atomic<int>::is_always_lock_free);

int arm(const std::string& path) {
  if (path.size() >= PATH_MAX) return -1;
  for (int i = 0; i < static_cast<int>(std::size(slots)); ++i) {
    int expected = kFree;
    if (!slots[i].state.compare_exchange_strong(expected, kTaken)) continue;
    std::memcpy(slots[i].path, path.c_str(), path.size() + 1);
    slots[i].state.store(kArmed);
    return i;
  }
  return -1;
}

void disarm(int slot) {
  if (slot >= 0) slots[slot].state.store(kFree);
}

void flush(const std::string& path, int flags, const std::string& shown) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  const bool good = fd >= 0 && ::fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  // EINVAL: file systems that cannot flush a folder.
  if (!good && error != EINVAL) fail("cannot flush '", shown, "' to the disk: ", std::strerror(error));
}

}  // namespace

TemporaryFile::TemporaryFile(const std::string& path) : destination_(path) {
  std::error_code ignored;
  std::filesystem::path target = std::filesystem::absolute(path);
  if (std::filesystem::is_symlink(target, ignored)) {
    const auto real = std::filesystem::weakly_canonical(target, ignored);
    if (!ignored) target = real;
  }
  target_ = target.string();
  if (std::filesystem::is_directory(target, ignored)) fail("cannot write file '", path, "': it is a folder");
  // Renaming would put a file in the place of a device or pipe.
  if (std::filesystem::exists(target, ignored) && !std::filesystem::is_regular_file(target, ignored))
    fail("cannot write file '", path, "': it is a device or pipe");
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    path_ = cat(target_, ".", ::getpid(), "-", counter++, ".tmp");
    const int fd = ::open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (fd >= 0) {
      ::close(fd);
      slot_ = arm(path_);
      return;
    }
    if (errno != EEXIST) break;
  }
  fail("cannot write file '", path, "': ", std::strerror(errno));
}

TemporaryFile::~TemporaryFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
  disarm(slot_);
}

void TemporaryFile::commit() {
  flush(path_, O_WRONLY, destination_);
  if (std::rename(path_.c_str(), target_.c_str()) != 0)
    fail("cannot write file '", destination_, "': ", std::strerror(errno));
  path_.clear();
  disarm(slot_);
  slot_ = -1;
  flush(std::filesystem::path(target_).parent_path().string(), O_RDONLY | O_DIRECTORY, destination_);
}

void remove_temporary_files() noexcept {
  const int saved = errno;
  for (Slot& slot : slots)
    if (slot.state.load() == kArmed) ::unlink(slot.path);
  errno = saved;
}

}  // namespace plait
