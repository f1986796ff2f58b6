#include "tools/peaks.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "runtime/base/arena.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"

namespace plait {
namespace {

constexpr Index kRows = 60;        // five full register tiles
constexpr Index kDepth = 256;      // a panel of 32 kB (f32): with its rows inside the second-level cache
constexpr double kSeconds = 0.15;  // of each measurement
constexpr std::size_t kRead = std::size_t{1} << 29;  // bytes: beyond every cache of today
constexpr int kReadPasses = 4;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Operands of one thread.
struct Operands {
  std::vector<float> x = std::vector<float>(kRows * kDepth, 0.5f), y = std::vector<float>(kRows * kPanel);
  std::vector<float> w = std::vector<float>(kDepth * kPanel, 0.25f);
  std::vector<bf16> narrow_x = std::vector<bf16>(kRows * kDepth, to_bf16(0.5f));
  std::vector<bf16> narrow_w = std::vector<bf16>(kDepth * kPanel, to_bf16(0.25f));
};

// GFLOP/s of all threads, each calling product(operands) again and again for a while; the best of three
// whiles.
template <class Product>
double measure_product(int threads, Product product) {
  std::vector<Operands> operands(static_cast<std::size_t>(threads));
  double best = 0;
  for (int trial = 0; trial < 3; ++trial) {
    std::vector<double> rates(operands.size());
    parallel_for(threads, threads, [&](Index t) {
      Operands& mine = operands[static_cast<std::size_t>(t)];
      const double start = now();
      double calls = 0, elapsed = 0;
      while ((elapsed = now() - start) < kSeconds / 3) {
        for (int i = 0; i < 16; ++i) product(mine);
        calls += 16;
      }
      rates[static_cast<std::size_t>(t)] = calls * 2.0 * kRows * kDepth * kPanel / elapsed / 1e9;
    });
    double total = 0;
    for (const double rate : rates) total += rate;
    best = std::max(best, total);
  }
  return best;
}

// Keeps a value the compiler would otherwise see is unused.
void keep(float value) {
  volatile float sink = value;
  static_cast<void>(sink);
}

double measure_read(int threads, const Kernels& k) {
  Buffer buffer(kRead);
  constexpr Index kPieces = 1024;
  constexpr Index kPiece = static_cast<Index>(kRead / sizeof(float)) / kPieces;
  parallel_for(threads, kPieces,
               [&](Index i) { std::fill_n(buffer.as<float>() + i * kPiece, kPiece, 1.0f); });
  double best = 0;
  for (int pass = 0; pass < kReadPasses; ++pass) {
    std::vector<float> sums(kPieces);
    const double start = now();
    parallel_for(threads, kPieces, [&](Index i) {
      sums[static_cast<std::size_t>(i)] = k.sum(buffer.as<const float>() + i * kPiece, kPiece);
    });
    best = std::max(best, static_cast<double>(kRead) / (now() - start) / 1e9);
    keep(sums[0]);
  }
  return best;
}

}  // namespace

Peaks measure_peaks(const Compute& compute) {
  const Kernels& k = kernels(compute);
  Peaks peaks;
  peaks.gflops_f32 = measure_product(compute.threads, [&](Operands& o) {
    k.packed_f32(kRows, kDepth, o.x.data(), kDepth, o.w.data(), o.y.data(), kPanel, Start::zero);
  });
  peaks.gflops_bf16 = measure_product(compute.threads, [&](Operands& o) {
    if (compute.numerics == Numerics::fast)
      k.packed_bf16_fast(kRows, kDepth, o.narrow_x.data(), kDepth, o.narrow_w.data(), o.y.data(), kPanel,
                         Start::zero);
    else
      k.packed_bf16(kRows, kDepth, o.x.data(), kDepth, o.narrow_w.data(), o.y.data(), kPanel, Start::zero);
  });
  peaks.read_gbps = measure_read(compute.threads, k);
  return peaks;
}

std::size_t peak_rss_bytes() {
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace plait
