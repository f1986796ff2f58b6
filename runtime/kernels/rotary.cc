#include "runtime/kernels/rotary.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"

namespace plait {
namespace {

constexpr double kLn2 = 0.6931471805599453;
// ln 2 in two parts; multiples of the first are exact.
constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;

}  // namespace

double portable_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.7071067811865476) {
    m *= 2;
    --exponent;
  }
  const double z = (m - 1) / (m + 1), z2 = z * z;
  double series = 0;
  for (int n = 25; n >= 1; n -= 2) series = series * z2 + 1.0 / n;
  return exponent * kLn2High + (2 * z * series + exponent * kLn2Low);
}

double portable_exp(double x) {
  const double n = std::floor(x / kLn2 + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double series = 1;
  for (int i = 18; i >= 1; --i) series = 1 + series * r / i;
  return std::ldexp(series, static_cast<int>(n));
}

std::vector<double> rotary_frequencies(double theta, Index dim) {
  assert(dim > 0 && dim % 2 == 0);
  const double step = 2 * portable_log(theta) / static_cast<double>(dim);
  std::vector<double> frequencies;
  for (Index i = 0; i < dim / 2; ++i) frequencies.push_back(portable_exp(-step * static_cast<double>(i)));
  return frequencies;
}

Rotary::Rotary(std::vector<double> frequencies, Layout layout, float factor)
    : frequencies_(std::move(frequencies)), layout_(layout), factor_(factor) {}

void Rotary::apply(View<float> rows, Index heads, double first_position, const Compute& compute) const {
  apply_each(
      rows, heads, [&](Index r) { return first_position + static_cast<double>(r); }, compute);
}

void Rotary::apply(View<float> rows, Index heads, std::span<const Index> positions,
                   const Compute& compute) const {
  assert(static_cast<Index>(positions.size()) == rows.rows);
  apply_each(
      rows, heads, [&](Index r) { return static_cast<double>(positions[static_cast<std::size_t>(r)]); },
      compute);
}

void Rotary::apply_each(View<float> rows, Index heads, const std::function<double(Index)>& position_of,
                        const Compute& compute) const {
  const Kernels& k = kernels(compute);
  const Index half = dim() / 2, head_dim = rows.cols / heads, group = 16;
  assert(head_dim * heads == rows.cols && dim() <= head_dim);
  parallel_for(compute.threads, ceil_div(rows.rows, group), [&](Index g) {
    Arena::Scope scope(scratch());
    double* angles = scope.take<double>(half);
    float* sine = scope.take(half);
    float* cosine = scope.take(half);
    for (Index r = g * group; r < std::min(rows.rows, (g + 1) * group); ++r) {
      for (Index i = 0; i < half; ++i) angles[i] = position_of(r) * frequencies_[static_cast<std::size_t>(i)];
      k.sin_cos(angles, sine, cosine, half);
      if (factor_ != 1) {
        k.scale(sine, factor_, sine, half);
        k.scale(cosine, factor_, cosine, half);
      }
      for (Index h = 0; h < heads; ++h) rotate(cosine, sine, rows.row(r) + h * head_dim);
    }
  });
}

void Rotary::rotate(const float* cosine, const float* sine, float* head) const {
  const Index half = dim() / 2;
  const bool halves = layout_ == Layout::half_split;
  const Index step = halves ? 1 : 2, partner = halves ? half : 1;
  for (Index i = 0; i < half; ++i) {
    const float x = head[i * step], y = head[i * step + partner];
    head[i * step] = x * cosine[i] - y * sine[i];
    head[i * step + partner] = y * cosine[i] + x * sine[i];
  }
}

}  // namespace plait
