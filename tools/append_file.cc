#include "tools/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/base/error.h"
#include "weights/file_lock.h"

namespace plait {
namespace {

std::vector<char> read_all(int file, const std::string& path, const std::string& what) {
  std::vector<char> bytes;
  char block[1 << 16];
  for (;;) {
    const ssize_t count = ::pread(file, block, sizeof block, static_cast<off_t>(bytes.size()));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(what, " '", path, "' cannot be read: ", std::strerror(errno));
    if (count == 0) return bytes;
    bytes.insert(bytes.end(), block, block + count);
  }
}

}  // namespace

std::uint32_t crc_of(std::span<const char> bytes) {
  return static_cast<std::uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<z_size_t>(bytes.size())));
}

AppendFile::AppendFile(const std::string& path, std::string what) : path_(path), what_(std::move(what)) {
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file_ < 0) fail(what_, " '", path, "' cannot be opened: ", std::strerror(errno));
  try {
    struct stat status {};
    if (::fstat(file_, &status) != 0 || !S_ISREG(status.st_mode))
      fail(what_, " '", path, "' cannot be opened: it is a device or pipe");
    lock_for_writing(file_, path);
  } catch (...) {
    ::close(file_);
    throw;
  }
}

AppendFile::~AppendFile() { ::close(file_); }

std::vector<char> AppendFile::contents() const { return read_all(file_, path_, what_); }

void AppendFile::cut(std::size_t bytes) {
  if (::ftruncate(file_, static_cast<off_t>(bytes)) != 0)
    fail(what_, " '", path_, "' cannot be written: ", std::strerror(errno));
}

void AppendFile::append(std::span<const char> bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file_, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail(what_, " '", path_, "' cannot be written: ", std::strerror(errno));
    done += static_cast<std::size_t>(count);
  }
}

void AppendFile::flush() {
  struct stat status {};
  if (::fstat(file_, &status) == 0 && status.st_nlink == 0)
    fail(what_, " '", path_, "' was removed while it was written");
  if (::fdatasync(file_) != 0) fail(what_, " '", path_, "' cannot be written: ", std::strerror(errno));
}

std::vector<char> AppendFile::read(const std::string& path, const std::string& what) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) fail(what, " '", path, "' cannot be opened: ", std::strerror(errno));
  try {
    std::vector<char> bytes = read_all(file, path, what);
    ::close(file);
    return bytes;
  } catch (...) {
    ::close(file);
    throw;
  }
}

}  // namespace plait
