#include "runtime/base/noise.h"

#include <array>
#include <bit>
#include <cmath>

namespace plait {
namespace {

// The finaliser of SplitMix64.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// ln x for normal x > 0, by x = m 2^e and the series of atanh: not the C library's, whose last bit differs
// between machines.
double natural_log(double x) {
  constexpr double kLn2 = 0x1.62e42fefa39efp-1, kRootHalf = 0x1.6a09e667f3bcdp-1;
  const auto bits = std::bit_cast<std::uint64_t>(x);
  auto exponent = static_cast<int>(bits >> 52) - 1022;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | (1022ull << 52));
  if (m < kRootHalf) {
    m *= 2;
    --exponent;
  }
  const double z = (m - 1) / (m + 1), z2 = z * z;
  double series = 0;
  for (int n = 25; n >= 1; n -= 2) series = series * z2 + 1.0 / n;
  return exponent * kLn2 + 2 * z * series;
}

// Quantiles at the borders of equal cells. Between borders a chord is within 1e-4 of the curve, except in the
// outermost cells, where the curve itself is used.
constexpr int kBits = 11, kCells = 1 << kBits, kOuter = kCells / 64;

const std::array<float, kCells + 1>& quantiles() {
  static const auto table = [] {
    std::array<float, kCells + 1> all{};
    for (int i = 1; i < kCells; ++i)
      all[static_cast<std::size_t>(i)] = static_cast<float>(normal_quantile(static_cast<double>(i) / kCells));
    return all;
  }();
  return table;
}

}  // namespace

std::uint64_t noise_key(std::initializer_list<std::uint64_t> parts) {
  std::uint64_t key = 0x9e3779b97f4a7c15ull;
  for (const std::uint64_t part : parts) key = mix(key ^ mix(part + 0x9e3779b97f4a7c15ull)) + 1;
  return key;
}

double normal_quantile(double p) {
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * (((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179) /
           (((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1);
  }
  double r = std::sqrt(-natural_log(q < 0 ? p : 1 - p));
  double x = 0;
  if (r <= 5) {
    r -= 1.6;
    x = (((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777) /
        ((0.12021132975 * r + 0.73700164250) * r + 1);
  } else {
    r -= 5;
    x = (((0.017337203997 * r + 0.42868294337) * r + 3.0812263860) * r + 6.6579051150) /
        ((0.012258202635 * r + 0.24197894225) * r + 1);
  }
  return q < 0 ? -x : x;
}

void add_noise(std::uint64_t key, float scale, float* x, Index n) {
  const float* table = quantiles().data();
  for (Index i = 0; i < n; ++i) {
    const std::uint64_t bits = mix(key + static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15ull);
    const auto cell = static_cast<int>(bits >> (64 - kBits));
    float z = 0;
    if (cell >= kOuter && cell < kCells - kOuter) {
      const float part = static_cast<float>((bits >> 16) & 0xffffff) * 0x1p-24f;
      z = table[cell] + (table[cell + 1] - table[cell]) * part;
    } else {
      z = static_cast<float>(normal_quantile((static_cast<double>(bits >> 11) + 0.5) * 0x1p-53));
    }
    x[i] += scale * z;
  }
}

}  // namespace plait
