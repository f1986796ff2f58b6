// Two runs side by side: the same conditions, matched by the hash of their edits or by label.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/report/findings.h"
#include "tools/ablate/report/table.h"

namespace plait::ablate::report {

struct Comparison {
  struct Pair {
    const Result *left = nullptr, *right = nullptr;  // borrowed from the runs
  };
  struct Difference {
    std::string what, left, right;  // "arithmetic", and what each run says
  };
  const Run *left = nullptr, *right = nullptr;  // borrowed
  std::vector<Pair> pairs;                      // in the left run's primary measure
  std::vector<Difference> differences;          // of model, baseline, arithmetic: numbers compare with care
  std::string headline, detail;
};

// Throws Error where numbers cannot be compared at all: the data sets have other contents (both hashes are
// named), the right run lacks the left one's primary measure, or no condition is in both.
Comparison compare(const Run& left, const Run& right);

std::string comparison_figures(const Comparison& comparison);
Table comparison_table(const Comparison& comparison);

}  // namespace plait::ablate::report
