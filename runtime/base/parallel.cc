#include "runtime/base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace plait {
namespace {

// CPU seconds per second the control group grants, or 0 for no limit (cgroup v2, then v1).
double cgroup_quota() {
  std::string quota;
  double period = 0;
  if (std::ifstream file("/sys/fs/cgroup/cpu.max"); file >> quota >> period)
    return quota == "max" || period <= 0 ? 0 : std::stod(quota) / period;
  double granted = 0;
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
      period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (quota_file >> granted && period_file >> period && granted > 0 && period > 0) return granted / period;
  return 0;
}

thread_local bool inside_parallel = false;

// Indices are handed out one by one; the first exception stops the hand-out and is kept.
class Work {
 public:
  Work(Index count, void (*call)(void*, Index), void* body) : count_(count), call_(call), body_(body) {}

  void run() {
    const FloatEnvironment environment;
    inside_parallel = true;
    try {
      for (Index i = next_++; i < count_; i = next_++) call_(body_, i);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      next_ = count_;
    }
    inside_parallel = false;
  }

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  Index count_;
  void (*call_)(void*, Index);
  void* body_;
  std::atomic<Index> next_{0};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = sched_getaffinity(0, sizeof set, &set) == 0
                  ? CPU_COUNT(&set)
                  : static_cast<int>(std::thread::hardware_concurrency());
  if (const double quota = cgroup_quota(); quota > 0)
    cores = std::min(cores, static_cast<int>(std::ceil(quota)));
  return std::max(cores, 1);
}

#if defined(__x86_64__)
FloatEnvironment::FloatEnvironment() : saved_(_mm_getcsr()) {
  constexpr unsigned kDefault = 0x1f80;  // all exceptions masked, round to nearest, no FTZ, no DAZ
  _mm_setcsr(kDefault);
}
FloatEnvironment::~FloatEnvironment() { _mm_setcsr(saved_); }
#else
FloatEnvironment::FloatEnvironment() : saved_(static_cast<unsigned>(std::fegetround())) {
  std::fesetround(FE_TONEAREST);
}
FloatEnvironment::~FloatEnvironment() { std::fesetround(static_cast<int>(saved_)); }
#endif

void detail::parallel_run(int threads, Index count, void (*call)(void*, Index), void* body) {
  const int team = static_cast<int>(std::min<Index>(threads, count));
  if (team <= 1 || inside_parallel) {
    const FloatEnvironment environment;
    for (Index i = 0; i < count; ++i) call(body, i);
    return;
  }
  Work work(count, call, body);
#ifdef PLAIT_STD_THREADS
  std::vector<std::thread> helpers;
  for (int t = 1; t < team; ++t) helpers.emplace_back([&] { work.run(); });
  work.run();
  for (std::thread& helper : helpers) helper.join();
#else
#pragma omp parallel num_threads(team)
  work.run();
#endif
  work.rethrow();
}

}  // namespace plait
