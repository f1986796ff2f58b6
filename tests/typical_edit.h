// One sensible edit for every operator of every site: what the tests and benchmarks of all kinds go through.
#pragma once

#include <string>
#include <vector>

#include "runtime/run/layer.h"

namespace plait::testing {

// Edits of `node` over positions [begin, end) with what the operator needs: values, keys, a seed.
// state/{rank, noise, cast} come once per granularity the layer knows, conv/identity and erase/off once per
// option.
std::vector<Edit> typical_edits(const std::string& node, const SiteSpec& spec, Operator op, Index begin,
                                Index end);
// Of all sites and operators of a layer.
std::vector<Edit> typical_edits(const std::string& node, const Layer& layer, Index begin, Index end);

// "state/cast every token"
std::string describe(const Edit& edit);

}  // namespace plait::testing
