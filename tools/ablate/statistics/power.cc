#include "tools/ablate/statistics/power.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/ablate/statistics/distributions.h"

namespace plait::ablate {
namespace {

double distance(double paired_sd, const PowerSettings& settings) {
  if (!(settings.power > 0 && settings.power < 1))
    fail("the power must lie between 0 and 1, found ", settings.power);
  if (!(paired_sd >= 0)) fail("a standard deviation must be at least 0, found ", paired_sd);
  return (normal_critical(1 - settings.alpha) + normal_quantile(settings.power)) * paired_sd;
}

}  // namespace

double smallest_effect(Index clusters, double paired_sd, const PowerSettings& settings) {
  if (clusters < 2) fail("a detectable effect needs at least 2 clusters, found ", clusters);
  return distance(paired_sd, settings) / std::sqrt(static_cast<double>(clusters));
}

Index clusters_needed(double effect, double paired_sd, const PowerSettings& settings) {
  if (!(effect > 0)) fail("the effect to see must be above 0, found ", effect);
  const double root = distance(paired_sd, settings) / effect;
  if (!(root < 1e9)) fail("an effect of ", effect, " at a deviation of ", paired_sd, " is out of reach");
  return std::max<Index>(2, static_cast<Index>(std::ceil(root * root)));
}

}  // namespace plait::ablate
