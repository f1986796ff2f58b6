// libhdf5 1.10 can crash, loop or take all memory on damaged metadata, so a file is first walked in a
// short-lived child process by the same code that will read it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "weights/h5.h"

namespace plait {

// False where a sanitizer has reserved the address space.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kProbeBoundsMemory = false;
#elif defined(__has_feature)
inline constexpr bool kProbeBoundsMemory =
    !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer);
#else
inline constexpr bool kProbeBoundsMemory = true;
#endif

struct ProbeLimits {
  std::uint64_t memory = std::uint64_t{1} << 30;  // bytes above what the process has now, if it is bounded
  unsigned cpu_seconds = 5;                       // besides one second for every 8 MiB read
  unsigned stall_seconds = 30;                    // without any progress
};

// Runs walk(beat) in a child and returns when it ended well. Throws the Error it threw, or "file 'x' is
// damaged: ..." if it crashed, ran out of its limits or stalled. The child has only the calling thread:
// `walk` must start none (no parallel_for). Meant for the time before a program starts threads; with other
// threads alive it still works with glibc, whose allocator survives a fork, and keeps them out of HDF5
// meanwhile.
void probe(const std::string& path, const std::function<void(const h5::Beat&)>& walk,
           const ProbeLimits& limits = {});

}  // namespace plait
