#include "tools/plot/effect.h"

#include <cmath>

#include "tools/plot/text.h"

namespace plait::plot {

bool Effect::has_interval() const { return std::isfinite(low) && std::isfinite(high); }

int decimals_of(const Effect& e) {
  return e.has_interval() ? decimals_for((e.high - e.low) / 2) : decimals_for(e.value / 10);
}

std::string short_amount(const Effect& e) { return signed_decimal(e.value, decimals_of(e)); }

std::string short_interval(const Effect& e) {
  if (!e.has_interval()) return "no interval";
  const int decimals = decimals_of(e);
  return decimal(e.low, decimals) + " to " + decimal(e.high, decimals);
}

}  // namespace plait::plot
