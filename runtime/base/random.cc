#include "runtime/base/random.h"

#include <cmath>
#include <numbers>

namespace plait {
namespace {

std::array<std::uint32_t, 4> words(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  return philox({low(counter), high(counter), low(stream), high(stream)}, {low(seed), high(seed)});
}

double uniform(std::uint32_t low, std::uint32_t high) {
  return static_cast<double>((std::uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

// log x for x in (0, 1]: x = 2^e m with m in [1/sqrt 2, sqrt 2), log m = 2 atanh((m - 1) / (m + 1)).
double log_of(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double z = (m - 1) / (m + 1), square = z * z;
  double sum = 0;
  for (int n = 27; n >= 1; n -= 2) sum = sum * square + 1.0 / n;
  return exponent * std::numbers::ln2 + 2 * z * sum;
}

// cos 2 pi u for u in [0, 1): folded into the first eighth of the circle, Taylor there.
double cos_of_turn(double u) {
  if (u > 0.5) u = 1 - u;
  const double sign = u > 0.25 ? -1 : 1;
  if (u > 0.25) u = 0.5 - u;
  const bool sine = u > 0.125;
  const double x = 2 * std::numbers::pi * (sine ? 0.25 - u : u), square = x * x;
  double sum = 1;
  for (int n = sine ? 17 : 16; n >= 2; n -= 2) sum = 1 - sum * square / (n * (n - 1));
  return sign * (sine ? x * sum : sum);
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0],
                        b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

double uniform_draw(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  const auto w = words(seed, stream, counter);
  return uniform(w[0], w[1]);
}

double normal_draw(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  const auto w = words(seed, stream, counter);
  const double radius = std::sqrt(-2 * log_of(1 - uniform(w[0], w[1])));
  return radius * cos_of_turn(uniform(w[2], w[3]));
}

}  // namespace plait
