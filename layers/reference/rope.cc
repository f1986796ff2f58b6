#include "layers/reference/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace plait {
namespace {

RopeScaling read_scaling(Config& rope) {
  RopeScaling s;
  Config* scaling = rope.object("scaling", "change of the frequencies for longer contexts");
  if (!scaling) return s;
  constexpr RopeScaling::Type kTypes[] = {RopeScaling::Type::linear, RopeScaling::Type::llama3,
                                          RopeScaling::Type::yarn};
  s.type = kTypes[scaling->choice("type", {"linear", "llama3", "yarn"}, "rule of the change")];
  s.factor = scaling->number("factor", "how much longer the context becomes");
  if (s.factor <= 0) scaling->refuse("factor is ", s.factor, ", but it must be positive");
  if (s.type == RopeScaling::Type::linear) return s;

  s.original_max_position_embeddings =
      scaling->integer("original_max_position_embeddings", "context length the model was trained with");
  if (s.type == RopeScaling::Type::llama3) {
    s.low_freq_factor = scaling->number("low_freq_factor", "rotations below which a frequency is divided");
    s.high_freq_factor = scaling->number("high_freq_factor", "rotations above which a frequency stays");
    if (s.low_freq_factor <= 0 || s.high_freq_factor <= s.low_freq_factor)
      scaling->refuse("low_freq_factor ", s.low_freq_factor, " and high_freq_factor ", s.high_freq_factor,
                      " must be positive and ascending");
    return s;
  }
  s.beta_fast = scaling->number_or("beta_fast", s.beta_fast, "rotations above which a frequency stays");
  s.beta_slow = scaling->number_or("beta_slow", s.beta_slow, "rotations below which a frequency is divided");
  s.attention_factor = scaling->number_or("attention_factor", 0, "factor on cosine and sine; 0 = computed");
  s.mscale = scaling->number_or("mscale", 0, "numerator's slope in the computed factor; 0 = absent");
  s.mscale_all_dim = scaling->number_or("mscale_all_dim", 0, "denominator's slope; 0 = absent");
  s.truncate = scaling->boolean_or("truncate", s.truncate, "round the correction range to whole channels");
  if (s.beta_slow <= 0 || s.beta_fast < s.beta_slow)
    scaling->refuse("beta_slow ", s.beta_slow, " and beta_fast ", s.beta_fast,
                    " must be positive and ascending");
  return s;
}

double mscale_of(double factor, double slope) {
  return factor <= 1 ? 1.0 : 0.1 * slope * std::log(factor) + 1.0;
}

double llama3_frequency(const RopeScaling& s, double frequency) {
  const double context = static_cast<double>(s.original_max_position_embeddings);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < context / s.high_freq_factor) return frequency;
  if (wavelength > context / s.low_freq_factor) return frequency / s.factor;
  const double smooth = (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * frequency / s.factor + smooth * frequency;
}

std::vector<double> yarn_frequencies(const RopeSettings& settings, std::vector<double> frequencies) {
  const RopeScaling& s = settings.scaling;
  const double dim = static_cast<double>(settings.dim);
  const auto channel_of = [&](double rotations) {
    const double context = static_cast<double>(s.original_max_position_embeddings);
    return dim * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(settings.theta));
  };
  double low = channel_of(s.beta_fast), high = channel_of(s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / s.factor * ramp + frequencies[i] * (1 - ramp);
  }
  return frequencies;
}

}  // namespace

std::optional<RopeSettings> read_rope(Config& config, Index head_dim) {
  Config* rope = config.object("rope", "rotary position embedding of queries and keys");
  if (!rope) return std::nullopt;
  RopeSettings s;
  s.theta = rope->number("theta", "base of the wavelengths");
  if (s.theta <= 1) rope->refuse("theta is ", s.theta, ", but it must be greater than 1");
  s.dim =
      rope->integer_or("dim", head_dim, "rotary channels, the first ones of a head; head_dim unless set", 2);
  if (s.dim > head_dim || s.dim % 2 != 0)
    rope->refuse("dim is ", s.dim, ", but it must be even and at most head_dim, ", head_dim);
  s.layout = static_cast<RopeSettings::Layout>(
      rope->choice("layout", {"half_split", "interleaved"}, "which channels form a pair"));
  s.scaling = read_scaling(*rope);
  return s;
}

std::vector<double> rope_frequencies(const RopeSettings& settings) {
  std::vector<double> frequencies;
  for (Index i = 0; i < settings.dim / 2; ++i)
    frequencies.push_back(
        std::pow(settings.theta, -2.0 * static_cast<double>(i) / static_cast<double>(settings.dim)));
  switch (settings.scaling.type) {
    case RopeScaling::Type::none:
      break;
    case RopeScaling::Type::linear:
      for (double& f : frequencies) f /= settings.scaling.factor;
      break;
    case RopeScaling::Type::llama3:
      for (double& f : frequencies) f = llama3_frequency(settings.scaling, f);
      break;
    case RopeScaling::Type::yarn:
      return yarn_frequencies(settings, std::move(frequencies));
  }
  return frequencies;
}

double rope_attention_factor(const RopeSettings& settings) {
  const RopeScaling& s = settings.scaling;
  if (s.type != RopeScaling::Type::yarn) return 1;
  if (s.attention_factor != 0) return s.attention_factor;
  if (s.mscale != 0 && s.mscale_all_dim != 0)
    return mscale_of(s.factor, s.mscale) / mscale_of(s.factor, s.mscale_all_dim);
  return mscale_of(s.factor, 1);
}

void rotate_head(const RopeSettings& settings, double position, double* x) {
  const std::vector<double> frequencies = rope_frequencies(settings);
  const double factor = rope_attention_factor(settings);
  const bool halves = settings.layout == RopeSettings::Layout::half_split;
  const Index half = settings.dim / 2;
  for (Index i = 0; i < half; ++i) {
    const double angle = position * frequencies[static_cast<std::size_t>(i)];
    const double cosine = factor * std::cos(angle), sine = factor * std::sin(angle);
    double& first = x[halves ? i : 2 * i];
    double& second = x[halves ? half + i : 2 * i + 1];
    const double rotated = first * cosine - second * sine;
    second = second * cosine + first * sine;
    first = rotated;
  }
}

}  // namespace plait
