// The machine's peaks, measured with the engine's own kernels: what shares are taken of.
#pragma once

#include "runtime/base/numerics.h"

namespace plait {

struct Peaks {
  double gflops_f32 = 0;   // packed product, operands in the caches, all threads
  double gflops_bf16 = 0;  // the same with bf16 weights in the mode of `compute`
  double read_gbps = 0;    // sum over a buffer far larger than the caches, all threads
};

// Takes about a second.
Peaks measure_peaks(const Compute& compute);

// Most memory this process has held so far.
std::size_t peak_rss_bytes();

}  // namespace plait
