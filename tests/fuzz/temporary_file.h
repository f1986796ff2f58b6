// What targets share that read files by name.
#pragma once

#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

namespace plait::fuzz {

// A file of these bytes while it lives.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string_view bytes)
      : path_(std::filesystem::temp_directory_path() / "plait-fuzz-XXXXXX") {
    const int file = ::mkstemp(path_.data());
    if (file < 0 || ::write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      std::abort();
    ::close(file);
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// For targets whose files are walked in a child process first (weights/probe.h): the branches it takes count
// as this process's, and it dies of what it finds without leaving an input behind as if this process had.
inline void count_children() {
  // Where libFuzzer looks what branches were taken. The compiler makes these names itself and cannot bear a
  // declaration of them.
  std::uintptr_t begin = 0, end = 0;
  asm("lea __start___sancov_cntrs(%%rip), %0" : "=r"(begin));
  asm("lea __stop___sancov_cntrs(%%rip), %0" : "=r"(end));
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  begin = (begin + page - 1) / page * page;
  end = end / page * page;
  const bool shared = ::mmap(reinterpret_cast<void*>(begin), end - begin, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
  const auto in_child = [] { __sanitizer_set_death_callback(nullptr); };
  if (!shared || ::pthread_atfork(nullptr, nullptr, in_child) != 0) std::abort();
}

}  // namespace plait::fuzz
