// A single-location estimator as a layer of the runtime: softmax_attention fed whole tokens.
#pragma once

#include "tools/probe/location_task.h"

namespace plait::probe {

// Risk E (y - f(X))^2 of the fast layer with one head on tokens of `width`: a column of ones makes the query,
// the key and value weights lie along the estimator's directions, and the last token's output is f.
// sampling.draws samples of the task; width at least 4.
Estimate layer_risk(const LocationTask& task, const LocationEstimator& estimator, Index width,
                    const Sampling& sampling);

}  // namespace plait::probe
