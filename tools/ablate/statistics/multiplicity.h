// p-values of a family of comparisons, adjusted for their number, which is p.size().
#pragma once

#include <span>
#include <string>
#include <vector>

namespace plait::ablate {

// holm: bounds the chance of any false claim, under any dependence (Holm 1979), for confirmatory comparisons.
// benjamini_hochberg: bounds the expected share of false claims (Benjamini and Hochberg 1995), for sweeps;
// holds under independence and positive dependence.
enum class Adjustment { none, holm, benjamini_hochberg };

std::string to_string(Adjustment adjustment);  // "none", "holm", "bh"

// Adjusted p-values in the order of p; a claim at level a is one whose adjusted p is at most a. Throws Error
// on a p outside [0, 1]: what was not tested is left out by the caller, who says so.
std::vector<double> adjust(Adjustment adjustment, std::span<const double> p);

}  // namespace plait::ablate
