// Results that belong on one line: by block, by window, by number of blocks removed, by strength, by context
// length.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/report/run.h"

namespace plait::ablate::report {

struct Curve {
  struct Point {
    double x = 0;
    const Result* result = nullptr;  // borrowed from the run
  };
  std::string name;
  std::vector<Point> points;  // x ascending
};

// Results of a design in the primary measure, in the order of the file; failed ones left out.
std::vector<const Result*> results_of(const Run& run, const std::string& design);

// One curve per intervention ("mixer.zero"), and per component where a block has several; x is the block.
// Single conditions below a block (heads) have no place on them.
std::vector<Curve> single_curves(const Run& run);
// One curve per intervention and width; x is the first block of the window.
std::vector<Curve> window_curves(const Run& run);
// From the bottom (block 0 up) and from the top, per intervention; x is the number of blocks removed.
std::vector<Curve> cumulative_curves(const Run& run);
// One curve per place an operator is dosed at; x is alpha.
std::vector<Curve> dose_curves(const Run& run);
// Groups and named interventions by a factor, the other factors being the primary measure's: x is the length
// of context, the first position of a bin ("position 64-127"), or the least distance of a bin to where a pair
// of tokens was last seen ("pair last seen: 16-31"); 0 is drawn as 1.
std::vector<Curve> context_curves(const Run& run);
std::vector<Curve> position_curves(const Run& run);
std::vector<Curve> distance_curves(const Run& run);
// Effective remembrance, one curve per data set and token before which everything was forgotten, those of a
// data set beside each other, in the primary measure's length of context; x is the least history of a bin
// ("history 16-63").
std::vector<Curve> remembrance_curves(const Run& run);

}  // namespace plait::ablate::report
