// What a reader should take away from each family of comparisons, said in words made from its numbers.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/ablate/report/run.h"

namespace plait::ablate::report {

// Comparisons of one design (single sites: of one intervention). Sentences give no size to a collapsed
// condition and name intervals, the number of comparisons and how p values were adjusted.
struct Family {
  std::string id = {};          // names files: "single-mixer-zero"
  std::string design = {};      // of conditions.csv; "part" are singles below a block, "context",
                                // "position", "distance", "remembrance" and "pareto" are made of other
                                // designs' results
  std::string kicker = {};      // "One mixer at a time"
  std::string headline = {};    // the one sentence
  std::string detail = {};      // the sentences after it
  std::string fine_print = {};  // how it was counted
  std::vector<const Result*> rows = {};  // what its table lists, most harmful first; borrowed from the run
};

// In the order in which a report tells them; designs the run does not hold are left out.
std::vector<Family> families(const Run& run);

// Loss one may give up before a removal counts as felt, where a sentence needs a line to draw.
inline constexpr double kFelt = 0.1;  // nats per token

// What a removal saves, in one of several currencies.
struct Saving {
  std::string id, title;                                // "params", "Parameters"
  std::function<double(const Run&, const Result&)> of;  // NaN where unknown
  std::function<std::string(double)> phrase;            // "1.2 M parameters"
};
const std::vector<Saving>& savings();
// Candidates: what removes whole components on purpose (no control draws, coalitions, doses), with a size.
std::vector<const Result*> removals(const Run& run);
// Those that no other removal beats in both harm and saving, least harmful first.
std::vector<const Result*> pareto_front(const Run& run, const Saving& saving);

// A pair beside the sum of its two members removed alone; NaN where one of them was not measured.
double sum_of_parts(const Run& run, const Result& pair);

}  // namespace plait::ablate::report
