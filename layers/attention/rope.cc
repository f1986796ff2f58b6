#include "layers/attention/rope.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"

namespace plait {
namespace {

constexpr double kPi = 3.141592653589793;
constexpr double kLn2 = 0.6931471805599453;
constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;

// Frequencies are powers of theta. libm's pow differs between machines in its last bit, and its bits would
// reach the logits; these two use only operations whose results IEEE 754 fixes (a few ulp from the truth).
double log_of(double x) {
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

double exp_of(double x) {
  const double n = std::floor(x / kLn2 + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double series = 1;
  for (int i = 18; i >= 1; --i) series = 1 + series * r / i;
  return std::ldexp(series, static_cast<int>(n));
}

double llama3(const RopeScaling& s, double frequency) {
  const double context = static_cast<double>(s.original_max_position_embeddings);
  const double rotations = context * frequency / (2 * kPi);  // over the original context
  if (rotations > s.high_freq_factor) return frequency;
  if (rotations < s.low_freq_factor) return frequency / s.factor;
  const double kept = (rotations - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - kept) * (frequency / s.factor) + kept * frequency;
}

// Channels where a frequency makes so many rotations over the original context: YaRN interpolates between
// two.
struct YarnRange {
  double low, high;

  explicit YarnRange(const RopeSettings& settings) {
    const RopeScaling& s = settings.scaling;
    low = channel_of(settings, s.beta_fast);
    high = channel_of(settings, s.beta_slow);
    if (s.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(settings.dim - 1));
    if (low == high) high += 0.001;
  }

  static double channel_of(const RopeSettings& settings, double rotations) {
    const double context = static_cast<double>(settings.scaling.original_max_position_embeddings);
    return static_cast<double>(settings.dim) * log_of(context / (rotations * 2 * kPi)) /
           (2 * log_of(settings.theta));
  }

  // 0: keep the frequency, 1: divide it by the factor.
  double ramp(Index channel) const {
    return std::clamp((static_cast<double>(channel) - low) / (high - low), 0.0, 1.0);
  }
};

double yarn_magnitude(double factor, double slope) {
  return factor <= 1 ? 1.0 : 0.1 * slope * log_of(factor) + 1.0;
}

double attention_factor_of(const RopeScaling& s) {
  if (s.type != RopeScaling::Type::yarn) return 1;
  if (s.attention_factor != 0) return s.attention_factor;
  if (s.mscale == 0 || s.mscale_all_dim == 0) return yarn_magnitude(s.factor, 1);
  return yarn_magnitude(s.factor, s.mscale) / yarn_magnitude(s.factor, s.mscale_all_dim);
}

double scaled(const RopeSettings& settings, Index channel, double frequency) {
  const RopeScaling& s = settings.scaling;
  switch (s.type) {
    case RopeScaling::Type::none:
      return frequency;
    case RopeScaling::Type::linear:
      return frequency / s.factor;
    case RopeScaling::Type::llama3:
      return llama3(s, frequency);
    case RopeScaling::Type::yarn: {
      const double ramp = YarnRange(settings).ramp(channel);
      return frequency / s.factor * ramp + frequency * (1 - ramp);
    }
  }
  return frequency;
}

}  // namespace

Rope::Rope(const RopeSettings& settings)
    : layout_(settings.layout), attention_factor_(static_cast<float>(attention_factor_of(settings.scaling))) {
  assert(settings.dim > 0 && settings.dim % 2 == 0);
  const double step = 2 * log_of(settings.theta) / static_cast<double>(settings.dim);
  for (Index i = 0; i < settings.dim / 2; ++i)
    frequencies_.push_back(scaled(settings, i, exp_of(-step * static_cast<double>(i))));
}

void Rope::apply(View<float> rows, Index heads, double first_position, const Compute& compute) const {
  apply_each(
      rows, heads, [&](Index r) { return first_position + static_cast<double>(r); }, compute);
}

void Rope::apply(View<float> rows, Index heads, std::span<const Index> positions,
                 const Compute& compute) const {
  assert(static_cast<Index>(positions.size()) == rows.rows);
  apply_each(
      rows, heads, [&](Index r) { return static_cast<double>(positions[static_cast<std::size_t>(r)]); },
      compute);
}

void Rope::apply_each(View<float> rows, Index heads, const std::function<double(Index)>& position_of,
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
      if (attention_factor_ != 1) {
        k.scale(sine, attention_factor_, sine, half);
        k.scale(cosine, attention_factor_, cosine, half);
      }
      for (Index h = 0; h < heads; ++h) rotate(cosine, sine, rows.row(r) + h * head_dim);
    }
  });
}

void Rope::rotate(const float* cosine, const float* sine, float* head) const {
  const Index half = dim() / 2;
  const bool halves = layout_ == RopeSettings::Layout::half_split;
  const Index step = halves ? 1 : 2, partner = halves ? half : 1;
  for (Index i = 0; i < half; ++i) {
    const float x = head[i * step], y = head[i * step + partner];
    head[i * step] = x * cosine[i] - y * sine[i];
    head[i * step + partner] = y * cosine[i] + x * sine[i];
  }
}

}  // namespace plait
