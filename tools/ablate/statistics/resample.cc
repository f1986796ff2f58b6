#include "tools/ablate/statistics/resample.h"

#include "runtime/base/random.h"

namespace plait::ablate {

Resample::Resample(std::uint64_t seed, Purpose purpose, Index replicate)
    : counter_{0, static_cast<std::uint32_t>(purpose), static_cast<std::uint32_t>(replicate),
               static_cast<std::uint32_t>(static_cast<std::uint64_t>(replicate) >> 32)},
      key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)} {}

std::uint32_t Resample::word() {
  if (left_ == 0) {
    words_ = philox(counter_, key_);
    ++counter_[0];
    left_ = 4;
  }
  return words_[static_cast<std::size_t>(--left_)];
}

Index Resample::below(Index n) {
  return static_cast<Index>(static_cast<std::uint64_t>(word()) * static_cast<std::uint64_t>(n) >> 32);
}

}  // namespace plait::ablate
