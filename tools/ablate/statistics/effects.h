// Effects per unit of what was removed, so that eighteen layers against six cannot mislead, and the front of
// removals that no other one beats.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/view.h"

namespace plait::ablate {

struct Removed {
  Index layers = 0, params = 0;
  double seconds = 0;  // measured: of the baseline less of the condition
};

// NaN where nothing was removed: a removal that saves no time has no effect per second.
struct UnitEffects {
  double per_layer = 0, per_million_params = 0, per_second = 0;
};

// effect: any mean or end of an interval of it. Throws Error on negative layers or params.
UnitEffects unit_effects(double effect, const Removed& removed);

// harms, savings [points]. True for each point that no other one beats: none has at most its harm and at
// least its saving, and one of the two better. Equal points are on the front together. Throws Error when the
// lengths differ or a value is NaN.
std::vector<bool> pareto_front(std::span<const double> harms, std::span<const double> savings);

}  // namespace plait::ablate
