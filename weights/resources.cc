#include "weights/resources.h"

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/base/error.h"

namespace plait {
namespace {

namespace fs = std::filesystem;

// One number in a file of its own; kUnknown for "max", absence and anything else.
std::uint64_t number_in(const fs::path& path) {
  std::ifstream in(path);
  std::uint64_t value = 0;
  return in >> value ? value : kUnknown;
}

// The number behind `key` in a file of "key number" lines.
std::uint64_t number_in(const fs::path& path, const std::string& key) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return kUnknown;
}

struct CgroupFiles {
  fs::path root;
  const char *limit, *usage, *reclaimable;
};

// The least room left from the process's group up to the root of the hierarchy.
std::uint64_t room_under(const CgroupFiles& files, const std::string& group) {
  std::uint64_t room = kUnknown;
  fs::path relative = fs::path(group).relative_path();
  while (true) {
    const fs::path folder = files.root / relative;
    const std::uint64_t limit = number_in(folder / files.limit), usage = number_in(folder / files.usage);
    if (limit != kUnknown && usage != kUnknown) {
      const std::uint64_t cache = number_in(folder / "memory.stat", files.reclaimable);
      const std::uint64_t held = usage - std::min(usage, cache == kUnknown ? 0 : cache);
      room = std::min(room, limit - std::min(limit, held));
    }
    if (relative.empty()) return room;
    relative = relative.parent_path();
  }
}

std::uint64_t cgroup_room() {
  std::ifstream in("/proc/self/cgroup");
  std::uint64_t room = kUnknown;
  std::string line;
  while (std::getline(in, line)) {  // "hierarchy:controllers:group"
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1),
                      group = line.substr(second + 1);
    if (controllers.empty())
      room = std::min(room,
                      room_under({"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"}, group));
    else if (controllers == "memory")
      room = std::min(room, room_under({"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                        "memory.usage_in_bytes", "total_inactive_file"},
                                       group));
  }
  return room;
}

std::uint64_t address_space_room() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnknown;
  const std::uint64_t pages = number_in("/proc/self/statm");
  const std::uint64_t used =
      pages == kUnknown ? 0 : pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return limit.rlim_cur - std::min<std::uint64_t>(limit.rlim_cur, used);
}

}  // namespace

std::uint64_t available_memory() {
  const std::uint64_t kib = number_in("/proc/meminfo", "MemAvailable:");
  const std::uint64_t system = kib == kUnknown ? kUnknown : kib * 1024;
  return std::min({system, cgroup_room(), address_space_room()});
}

void require_memory(std::uint64_t bytes, const std::string& what) {
  const std::uint64_t available = available_memory();
  if (bytes > available)
    fail(what, " needs ", byte_text(bytes), " of memory, ", byte_text(available), " are available");
}

std::uint64_t available_disk(const std::string& path) {
  struct statvfs stats {};
  const std::string folder = fs::absolute(path).parent_path().string();
  std::uint64_t room = kUnknown;
  if (::statvfs(folder.c_str(), &stats) == 0) room = std::uint64_t{stats.f_bavail} * stats.f_frsize;
  return std::min(room, file_size_limit());
}

std::uint64_t file_size_limit() {
  rlimit limit{};
  const bool known = ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return known ? limit.rlim_cur : kUnknown;
}

void require_disk(std::uint64_t bytes, const std::string& path) {
  const std::uint64_t available = available_disk(path);
  if (bytes > available)
    fail("file '", path, "' needs ", byte_text(bytes), " of disk space, ", byte_text(available), " are free");
}

std::string byte_text(std::uint64_t bytes) {
  if (bytes < 1024) return cat(bytes, " bytes");
  const char* units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(units)) value /= 1024, ++unit;
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value, units[unit]);
  return text;
}

}  // namespace plait
