#include "weights/temporary_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <vector>

#include "runtime/base/error.h"

namespace plait {
namespace {

// Fixed storage, because a signal handler reads it.
enum SlotState { kFree, kTaken, kFile, kFolder };
struct Slot {
  std::atomic<int> state{kFree};
  char path[PATH_MAX] = {};
};
Slot slots[64];
static_assert(std::atomic<int>::is_always_lock_free);

// Held while the names on the disk and the slots change together. A handler that takes it in another thread
// waits for a few system calls; none can run in the thread that holds it, where signals wait.
std::atomic_flag changing = ATOMIC_FLAG_INIT;

// Returns the signals that waited already.
sigset_t lock_names() noexcept {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  while (changing.test_and_set(std::memory_order_acquire)) {
  }
  return before;
}

class Changing {
 public:
  Changing() = default;
  ~Changing() {
    const int saved = errno;
    changing.clear(std::memory_order_release);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = saved;
  }
  Changing(const Changing&) = delete;
  Changing& operator=(const Changing&) = delete;

 private:
  const sigset_t before_ = lock_names();
};

int arm(const std::string& path, SlotState kind) {
  if (path.size() >= PATH_MAX) return -1;
  for (int i = 0; i < static_cast<int>(std::size(slots)); ++i) {
    int expected = kFree;
    if (!slots[i].state.compare_exchange_strong(expected, kTaken)) continue;
    std::memcpy(slots[i].path, path.c_str(), path.size() + 1);
    slots[i].state.store(kind);
    return i;
  }
  return -1;
}

void disarm(int slot) {
  if (slot >= 0) slots[slot].state.store(kFree);
}

// A fresh name beside `target`, for which `make` succeeds; empty if none was found.
template <class Make>
std::string fresh_name(const std::string& target, Make&& make) {
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    const std::string path = cat(target, ".", ::getpid(), "-", counter++, ".tmp");
    if (make(path)) return path;
    if (errno != EEXIST) break;
  }
  return {};
}

bool make_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
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

std::string file_named(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr int kMostLinks = 40;  // as the kernel follows
  std::error_code error;
  fs::path target = fs::absolute(path, error);
  if (error) return path;
  for (int links = 0; links < kMostLinks && fs::is_symlink(target, error); ++links)
    target = target.parent_path() / fs::read_symlink(target, error);
  const fs::path folder = fs::weakly_canonical(target.parent_path(), error);
  return error ? target.string() : (folder / target.filename()).string();
}

TemporaryFile::TemporaryFile(const std::string& path) : destination_(path), target_(file_named(path)) {
  std::error_code ignored;
  const std::filesystem::path target = target_;
  if (std::filesystem::is_directory(target, ignored)) fail("cannot write file '", path, "': it is a folder");
  // Renaming would put a file in the place of a device or pipe.
  if (std::filesystem::exists(target, ignored) && !std::filesystem::is_regular_file(target, ignored))
    fail("cannot write file '", path, "': it is a device or pipe");
  const Changing guard;
  path_ = fresh_name(target_, make_file);
  if (path_.empty()) fail("cannot write file '", path, "': ", std::strerror(errno));
  slot_ = arm(path_, kFile);
}

TemporaryFile::~TemporaryFile() {
  const Changing guard;
  if (!path_.empty()) ::unlink(path_.c_str());
  disarm(slot_);
}

void TemporaryFile::commit() {
  flush(path_, O_WRONLY, destination_);
  place();
  flush(std::filesystem::path(target_).parent_path().string(), O_RDONLY | O_DIRECTORY, destination_);
}

void TemporaryFile::place() {
  const Changing guard;
  if (std::rename(path_.c_str(), target_.c_str()) != 0)
    fail("cannot write file '", destination_, "': ", std::strerror(errno));
  path_.clear();
  disarm(slot_);
  slot_ = -1;
}

TemporaryFolder::TemporaryFolder(const std::string& path) : destination_(path) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path target = fs::absolute(path);
  if (!target.has_filename()) target = target.parent_path();  // "folder/"
  target_ = target.string();
  if (fs::exists(target, error) && !fs::is_directory(target, error))
    fail("cannot write folder '", path, "': it is a file");
  if (fs::exists(target, error) && !fs::is_empty(target, error))
    fail("cannot write folder '", path, "': it is not empty");
  const Changing guard;
  path_ = fresh_name(target_, [](const std::string& name) { return ::mkdir(name.c_str(), 0777) == 0; });
  if (path_.empty()) fail("cannot write folder '", path, "': ", std::strerror(errno));
  slots_.push_back(arm(path_, kFolder));
}

TemporaryFolder::~TemporaryFolder() {
  const Changing guard;
  if (!path_.empty()) {
    for (const std::string& file : files_) ::unlink(file.c_str());
    ::rmdir(path_.c_str());
  }
  for (const int slot : slots_) disarm(slot);
}

std::string TemporaryFolder::add(const std::string& name) {
  const std::string path = (std::filesystem::path(path_) / name).string();
  const Changing guard;
  if (!make_file(path))
    fail("cannot write file '", name, "' of folder '", destination_, "': ", std::strerror(errno));
  files_.push_back(path);
  slots_.push_back(arm(path, kFile));
  return path;
}

void TemporaryFolder::commit() {
  for (const std::string& file : files_) flush(file, O_WRONLY, destination_);
  flush(path_, O_RDONLY | O_DIRECTORY, destination_);
  {
    const Changing guard;
    if (std::rename(path_.c_str(), target_.c_str()) != 0)
      fail("cannot write folder '", destination_, "': ", std::strerror(errno));
    path_.clear();
  }
  flush(std::filesystem::path(target_).parent_path().string(), O_RDONLY | O_DIRECTORY, destination_);
}

void remove_temporary_files() noexcept {
  const int saved = errno;
  lock_names();
  for (Slot& slot : slots)
    if (slot.state.load() == kFile) ::unlink(slot.path);
  for (Slot& slot : slots)  // empty by now
    if (slot.state.load() == kFolder) ::rmdir(slot.path);
  errno = saved;
}

namespace {

// The N of "N" or "N<rest>", digits only; 0 without one.
int leading_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isdigit(static_cast<unsigned char>(text.front()))) return 0;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

// The process whose temporary file beside `target` is called `name` (fresh_name); 0 for another file.
int owner_of(std::string_view name, const std::string& target) {
  if (!name.starts_with(target + ".")) return 0;
  name.remove_prefix(target.size() + 1);
  const int process = leading_number(name);
  if (!name.starts_with("-") || !name.ends_with(".tmp")) return 0;
  name = name.substr(1, name.size() - 5);
  const bool digits = !name.empty() && name.find_first_not_of("0123456789") == name.npos;
  return digits ? process : 0;
}

}  // namespace

void remove_stale_temporaries(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path target = file_named(path);
  std::vector<fs::path> stale;
  for (fs::directory_iterator item(target.parent_path(), error), end; !error && item != end;
       item.increment(error)) {
    const int process = owner_of(item->path().filename().string(), target.filename().string());
    // A process of this number that lives may be another one; then the file waits for another time.
    if (process > 0 && ::kill(process, 0) != 0 && errno == ESRCH) stale.push_back(item->path());
  }
  for (const fs::path& file : stale) fs::remove(file, error);
}

}  // namespace plait
