// Threads. OpenMP in this one file (or a std::thread backend in builds with PLAIT_STD_THREADS, which the
// thread sanitizer understands).
#pragma once

#include <type_traits>
#include <utility>

#include "runtime/base/view.h"

namespace plait {

// Cores this process may use: affinity mask and cgroup quota.
int available_threads();

// Sets round to nearest, no flush to zero, no denormals-are-zero on this thread; restores what it found.
class FloatEnvironment {
 public:
  FloatEnvironment();
  ~FloatEnvironment();
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  unsigned saved_ = 0;
};

namespace detail {
void parallel_run(int threads, Index count, void (*call)(void* body, Index i), void* body);
}

// Calls body(i) for i in [0, count), each once, on up to `threads` threads, in no particular order. Every
// thread runs in a FloatEnvironment. The first exception is rethrown here after all have stopped. Nested
// calls run serially.
template <class Body>
void parallel_for(int threads, Index count, Body&& body) {
  using B = std::remove_reference_t<Body>;
  detail::parallel_run(
      threads, count, [](void* b, Index i) { (*static_cast<B*>(b))(i); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace plait
