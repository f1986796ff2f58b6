// Counter-based random sets: a function of what they are for and nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/view.h"

namespace plait::ablate {

enum class Stream : std::uint32_t { count, params, depth, permutation };

// What a draw is for. Equal keys give equal sets: in every model with that many places.
struct DrawKey {
  std::uint64_t seed;
  int places, members;  // below 2^24
  Stream stream;
  Index draw;       // below 2^32
  int attempt = 0;  // below 2^8
};

// Philox4x32-10 keyed by the seed; the counter is the rest of the key and the number of words taken so far.
class Draws {
 public:
  explicit Draws(const DrawKey& key) : key_(key) {}
  std::uint32_t below(std::uint32_t bound);  // uniform, exactly
  // `count` of 0 .. places - 1 without repeats, in the order drawn (Fisher-Yates): all of them = a
  // permutation.
  std::vector<int> sample(int places, int count);

 private:
  std::uint32_t word();
  DrawKey key_;
  std::uint32_t taken_ = 0;
};

}  // namespace plait::ablate
