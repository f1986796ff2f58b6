// Random numbers for resampling. Each is a function of (seed, purpose, replicate, count), so that a resample
// is the same on every machine, on any number of threads and in whatever order replicates are worked on.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/base/view.h"

namespace plait::ablate {

// What the numbers are for: two purposes never share a number, whatever their replicates.
enum class Purpose : std::uint32_t { bootstrap, bootstrap_controls, sign_flip };

// The numbers of one replicate, from Philox4x32-10 (runtime/base/random.h).
class Resample {
 public:
  Resample(std::uint64_t seed, Purpose purpose, Index replicate);
  std::uint32_t word();
  // Uniform in [0, n) for n up to 2^32; no probability is off by more than 2^-32.
  Index below(Index n);

 private:
  std::array<std::uint32_t, 4> counter_, words_ = {};
  std::array<std::uint32_t, 2> key_;
  int left_ = 0;
};

}  // namespace plait::ablate
