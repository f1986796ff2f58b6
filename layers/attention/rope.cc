#include "layers/attention/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace plait {
namespace {

constexpr double kPi = std::numbers::pi;

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
    return static_cast<double>(settings.dim) * portable_log(context / (rotations * 2 * kPi)) /
           (2 * portable_log(settings.theta));
  }

  // 0: keep the frequency, 1: divide it by the factor.
  double ramp(Index channel) const {
    return std::clamp((static_cast<double>(channel) - low) / (high - low), 0.0, 1.0);
  }
};

double yarn_magnitude(double factor, double slope) {
  return factor <= 1 ? 1.0 : 0.1 * slope * portable_log(factor) + 1.0;
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

Rotary make_rope(const RopeSettings& settings) {
  std::vector<double> frequencies = rotary_frequencies(settings.theta, settings.dim);
  for (std::size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = scaled(settings, static_cast<Index>(i), frequencies[i]);
  const bool halves = settings.layout == RopeSettings::Layout::half_split;
  return Rotary(std::move(frequencies), halves ? Rotary::Layout::half_split : Rotary::Layout::interleaved,
                static_cast<float>(attention_factor_of(settings.scaling)));
}

}  // namespace plait
