// What benchmarks compare with, measured in the same run.
#pragma once

#include <map>
#include <utility>

#include "runtime/base/view.h"

namespace plait::yardsticks {

// Bytes per second of summing a buffer larger than any cache, all threads, best of a few passes.
double read_bandwidth(int threads, bool smoke);

// Seconds oneDNN's matmul takes for `count` products [rows, in] x [in, out] of each shape (out, in), f32 or
// bf16 (f32 output), weights in its own packed format, best of a few passes; infinity when oneDNN is not
// there.
double onednn_seconds(const std::map<std::pair<Index, Index>, int>& shapes, Index rows, bool bf16,
                      int threads);

}  // namespace plait::yardsticks
