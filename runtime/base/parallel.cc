#include "runtime/base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <fstream>
#include <string>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

#ifdef PLAIT_STD_THREADS
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>
#endif

namespace plait {

namespace {

// Cores by quota in a cgroup folder and its parents: version 2 keeps "quota period" in cpu.max, version 1 in two
// files. Unreadable or unlimited folders do not count.
double quota_of(const std::string& folder) {
  double quota = 0, period = 0;
  if (std::ifstream file(folder + "/cpu.max"); file >> quota >> period && quota > 0 && period > 0)
    return quota / period;
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
  if (quota_file >> quota && period_file >> period && quota > 0 && period > 0) return quota / period;
  return HUGE_VAL;
}

double cgroup_cores() {
  double cores = HUGE_VAL;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool version_2 = controllers.empty();
    if (!version_2 && controllers.find("cpu") == std::string::npos) continue;
    const std::string root = version_2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controllers;
    for (; !path.empty(); path.resize(path.rfind('/')))
      cores = std::min(cores, quota_of(root + (path == "/" ? "" : path)));
    cores = std::min(cores, quota_of(root));
  }
  return std::min({cores, quota_of("/sys/fs/cgroup"), quota_of("/sys/fs/cgroup/cpu")});
}

#if defined(__x86_64__) || defined(__i386__)
unsigned read_control() { return _mm_getcsr(); }
void write_control(unsigned control) { _mm_setcsr(control); }
// Rounding control, flush-to-zero, denormals-are-zero.
constexpr unsigned kControlBits = 0x6000u | 0x8000u | 0x0040u;
#elif defined(__aarch64__)
unsigned read_control() {
  unsigned long control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  return static_cast<unsigned>(control);
}
void write_control(unsigned control) { asm volatile("msr fpcr, %0" : : "r"(static_cast<unsigned long>(control))); }
// Rounding mode, flush-to-zero, half precision's flush-to-zero.
constexpr unsigned kControlBits = 3u << 22 | 1u << 24 | 1u << 19;
#else
unsigned read_control() { return static_cast<unsigned>(std::fegetround()); }
void write_control(unsigned control) { std::fesetround(static_cast<int>(control)); }
constexpr unsigned kControlBits = ~0u;  // FE_TONEAREST is 0 wherever this branch has been looked at
#endif

// One parallel_for in flight: threads draw indices until none are left or one has thrown.
class Work {
 public:
  Work(Index count, void (*call)(void*, Index), void* body) : count_(count), call_(call), body_(body) {}

  void take_part() noexcept {
    const FloatEnvironment environment;
    try {
      for (Index i = next_.fetch_add(1, std::memory_order_relaxed); i < count_;
           i = next_.fetch_add(1, std::memory_order_relaxed))
        call_(body_, i);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
      next_.store(count_, std::memory_order_relaxed);
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const Index count_;
  void (*const call_)(void*, Index);
  void* const body_;
  std::atomic<Index> next_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

thread_local bool inside_region = false;

class Region {
 public:
  Region() { inside_region = true; }
  ~Region() { inside_region = false; }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
};

#ifdef PLAIT_STD_THREADS
// Workers wait for a piece of work; one caller at a time has them, another one meanwhile works alone.
class Pool {
 public:
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    begin_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void run(int threads, Work& work) {
    const std::unique_lock turn(turn_, std::try_to_lock);
    if (!turn) return work.take_part();
    {
      const std::lock_guard lock(mutex_);
      while (static_cast<int>(workers_.size()) < threads - 1) workers_.emplace_back([this] { serve(); });
      work_ = &work;
      wanted_ = threads - 1;
    }
    begin_.notify_all();
    work.take_part();
    std::unique_lock lock(mutex_);
    wanted_ = 0;  // whoever has not begun need not
    end_.wait(lock, [this] { return busy_ == 0; });
    work_ = nullptr;
  }

 private:
  void serve() {
    const Region region;
    std::unique_lock lock(mutex_);
    while (true) {
      begin_.wait(lock, [this] { return ending_ || wanted_ > 0; });
      if (ending_) return;
      --wanted_;
      ++busy_;
      Work* work = work_;
      lock.unlock();
      work->take_part();
      lock.lock();
      if (--busy_ == 0) end_.notify_all();
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable begin_, end_;
  std::vector<std::thread> workers_;
  Work* work_ = nullptr;
  int wanted_ = 0, busy_ = 0;
  bool ending_ = false;
};

void run_threads(int threads, Work& work) {
  static Pool pool;
  pool.run(threads, work);
}
#else
void run_threads(int threads, Work& work) {
#pragma omp parallel num_threads(threads)
  {
    const Region region;
    work.take_part();
  }
}
#endif

}  // namespace

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int affinity = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  const double quota = std::ceil(cgroup_cores());
  return std::max(1, quota < affinity ? static_cast<int>(quota) : affinity);
}

FloatEnvironment::FloatEnvironment() : saved_(read_control()) {
  if ((saved_ & kControlBits) != 0) write_control(saved_ & ~kControlBits);
}

FloatEnvironment::~FloatEnvironment() {
  if ((saved_ & kControlBits) != 0) write_control(saved_);
}

void detail::parallel_run(int threads, Index count, void (*call)(void*, Index), void* body) {
  if (count <= 0) return;
  if (threads <= 1 || count == 1 || inside_region) {
    const FloatEnvironment environment;
    for (Index i = 0; i < count; ++i) call(body, i);
    return;
  }
  Work work(count, call, body);
  {
    const Region region;
    run_threads(static_cast<int>(std::min<Index>(threads, count)), work);
  }
  work.rethrow();
}

}  // namespace plait
