// How long a text may become on its way through a tokenizer. Components that write two characters for one can
// be repeated in a file of a few kilobytes until no memory is enough.
#pragma once

#include <algorithm>
#include <cstddef>

#include "runtime/base/error.h"

namespace plait {

inline constexpr std::size_t kMaxText = (std::size_t{1} << 31) - 1;  // bytes

// One character becomes at most 18 by normalization, and a byte two.
inline std::size_t growth_limit(std::size_t bytes) {
  return std::min(kMaxText, (std::size_t{1} << 20) + 64 * std::min(bytes, kMaxText));
}

inline void check_growth(std::size_t bytes, std::size_t limit) {
  if (bytes > limit)
    fail("the tokenizer turns this text into ", bytes, " bytes; at most ", limit, " are read");
}

}  // namespace plait
