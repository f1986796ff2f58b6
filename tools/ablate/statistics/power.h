// What a study can see, before it runs: z-approximation for a paired mean of n clusters, two-sided,
// (z_{1-alpha/2} + z_power) * sd / sqrt(n) (Cohen, Statistical Power Analysis, 1988). For fewer than about 20
// clusters it is optimistic, the error itself being estimated from few.
#pragma once

#include "runtime/base/view.h"

namespace plait::ablate {

struct PowerSettings {
  double power = 0.8;  // chance to see the effect
  double alpha =
      0.05;  // chance to see one that is not there; divide by the number of comparisons for a family
};

// In the unit of paired_sd, the standard deviation between clusters of the paired difference. Both throw
// Error on n < 2, a negative deviation, an effect not above 0, or probabilities outside (0, 1).
double smallest_effect(Index clusters, double paired_sd, const PowerSettings& settings = {});
Index clusters_needed(double effect, double paired_sd, const PowerSettings& settings = {});

}  // namespace plait::ablate
