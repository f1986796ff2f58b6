// Counter-based random numbers: a draw is a function of its key and counter, the same on every machine.
#pragma once

#include <array>
#include <cstdint>

namespace plait {

// Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, 2011).
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

// Uniform in [0, 1), 53 bits.
double uniform_draw(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter);

// Standard normal, |x| < 8.6: Box and Muller over logarithm and cosine of our own (relative error below
// 1e-14).
double normal_draw(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter);

}  // namespace plait
