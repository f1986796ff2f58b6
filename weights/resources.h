// What this machine has left, asked before it is needed.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace plait {

inline constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

// Memory this process may still take: the least of the system's available memory, the room under every cgroup
// limit above the process (reclaimable page cache counts as room) and its own address-space limit. kUnknown
// if none is known.
std::uint64_t available_memory();
// Throws Error "<what> needs 3.9 TiB of memory, 20.1 GiB are available".
void require_memory(std::uint64_t bytes, const std::string& what);

// Bytes that may still be written to a file in the folder of `path`: free disk space and the file size limit.
std::uint64_t available_disk(const std::string& path);
void require_disk(std::uint64_t bytes, const std::string& path);

// How long a file of this process may become.
std::uint64_t file_size_limit();

std::string byte_text(std::uint64_t bytes);  // "3.9 TiB"

}  // namespace plait
