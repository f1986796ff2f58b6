// A measured value with its interval, as charts draw it.
#pragma once

#include <limits>
#include <string>

namespace plait::plot {

inline constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// NaN where nothing was measured. In a report values are harm: positive where the model got worse.
struct Effect {
  double value = kNone, low = kNone, high = kNone;
  bool has_interval() const;
};

// How far an effect is to be believed.
enum class Certainty {
  clear,      // adjusted p below 0.05; without p, an interval that excludes zero
  unclear,    // neither
  collapsed,  // no better than a uniform guess: its size means nothing
};

// Decimals that show two digits of the interval's half-width, or three of the value where there is none.
int decimals_of(const Effect& effect);
// "+0.81", "0.741 to 0.884".
std::string short_amount(const Effect& effect);
std::string short_interval(const Effect& effect);

}  // namespace plait::plot
