// A target beside the random sets drawn to match it.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/report/effect.h"

namespace plait::ablate::report {

struct ControlSet {
  struct Draw {
    double harm = 0;
    bool collapsed = false, with_block_0 = false;
  };
  const Result* target = nullptr;  // borrowed from the run
  std::string match_kind;          // count, params, depth
  std::vector<Draw> draws;
  int as_bad = 0;                // draws at least as harmful as the target; two collapsed sets count as equal
  const Result* rank = nullptr;  // what results.csv says of it (filter "controls:count"): p, gap; may be null
  // Two-sided and adjusted where results.csv has it, else (as_bad + 1) / (draws + 1).
  double p() const;
};

// In the primary measure, one per target and kind of matching, in the order of controls.csv.
std::vector<ControlSet> control_sets(const Run& run);

// "as many blocks", "as many parameters", "as many blocks at like depth".
std::string matched_by(const std::string& match_kind);

}  // namespace plait::ablate::report
