#include "tools/ablate/draws.h"

#include <numeric>
#include <utility>

#include "runtime/base/random.h"

namespace plait::ablate {

std::uint32_t Draws::word() {
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const std::uint32_t block = taken_ / 4 | low(static_cast<std::uint64_t>(key_.attempt)) << 24;
  const auto words =
      philox({block, low(static_cast<std::uint64_t>(key_.draw)), static_cast<std::uint32_t>(key_.members),
              static_cast<std::uint32_t>(key_.places) | static_cast<std::uint32_t>(key_.stream) << 24},
             {low(key_.seed), low(key_.seed >> 32)});
  return words[taken_++ % 4];
}

std::uint32_t Draws::below(std::uint32_t bound) {
  // Words at and above the largest multiple of the bound would favour small results.
  const std::uint32_t surplus = static_cast<std::uint32_t>(-bound) % bound;
  for (;;) {
    const std::uint32_t w = word();
    if (w <= UINT32_MAX - surplus) return w % bound;
  }
}

std::vector<int> Draws::sample(int places, int count) {
  std::vector<int> all(static_cast<std::size_t>(places));
  std::iota(all.begin(), all.end(), 0);
  for (int i = 0; i < count; ++i)
    std::swap(all[static_cast<std::size_t>(i)],
              all[static_cast<std::size_t>(i) + below(static_cast<std::uint32_t>(places - i))]);
  all.resize(static_cast<std::size_t>(count));
  return all;
}

}  // namespace plait::ablate
