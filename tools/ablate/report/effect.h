// One result as an effect: how much worse the model does, in units people read.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/report/run.h"
#include "tools/plot/effect.h"

namespace plait::ablate::report {

using plot::Certainty;
using plot::Effect;

// How a metric is named and counted. Shares (accuracy, agreement) are shown in points of a hundred.
struct MetricText {
  std::string title;  // "loss"
  std::string unit;   // "nats per token"; "points"
  double factor = 1;  // from the file's value to the unit
};
MetricText metric_text(const std::string& metric);

// Harm: positive where the model got worse, whichever way the metric points.
Effect effect_of(const Result& result, const Measure& measure);
Certainty certainty_of(const Result& result);

// A result that has a size: measured, not failed, not collapsed.
bool has_size(const Result& result);

std::string amount(const Effect& effect, const std::string& unit);         // "0.812 nats per token"
std::string with_interval(const Effect& effect, const std::string& unit);  // ".. (0.741 to 0.884)"

// "tiny-shakespeare, loss", with the factors that tell it from the others of `among` on its data set and
// metric.
std::string title_of(const Measure& measure, const std::vector<Measure>& among);
std::string unit_of(const Run& run, int measure);
// Blocks as people write them: "block 3", "blocks 0–2 and 5".
std::string blocks(const std::vector<int>& layers);

}  // namespace plait::ablate::report
