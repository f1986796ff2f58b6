// From token scores to results: paired, clustered by document, adjusted, ranked among matched controls.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tools/ablate/corpus.h"
#include "tools/ablate/journal.h"
#include "tools/ablate/plan.h"
#include "tools/ablate/results.h"
#include "tools/ablate/stop_rule.h"

namespace plait::ablate {

// Scores of all conditions, from the journals of a study's phases: the sweep, then pairs chosen by it.
class ScoreBook {
 public:
  // conditions: which condition of the plan each of the journal's is. Throws Error when units differ.
  void add(std::vector<UnitScores> units, std::vector<int> conditions);
  std::span<const TokenScores> of(int condition, std::size_t unit) const;
  std::size_t unit_count() const { return phases_.empty() ? 0 : phases_[0].size(); }

 private:
  std::vector<std::vector<UnitScores>> phases_;
  std::map<int, std::pair<std::size_t, Index>> place_;  // condition -> phase, row
};

// What a condition cost alone.
struct SoloCost {
  double seconds = kNotGiven, forwards_equiv = kNotGiven;
};

struct AnalysisInput {
  const Study& study;
  const Plan& plan;
  std::span<const Text> texts;
  std::span<const Unit> units;
  const ScoreBook& scores;
  std::map<int, SoloCost> costs;  // by condition
  Index vocab;
  int threads = 1;  // changes no bit
  // Texts and contexts that ended early: their intervals are the rule's, and there are no p-values.
  const StopRule* stop = nullptr;
  std::set<std::pair<int, Index>> stopped = {};
};

// The conditions as files list them: one entry per name a design gave (so that each design is complete), and
// one per set that only controls and Shapley orders use. first: named as that use; second: index into
// plan.conditions.
std::vector<std::pair<Condition, int>> listed(const Plan& plan);

std::vector<ResultRow> analyse(const AnalysisInput& input);

// The single conditions of a site by their effect on the primary data (the first text and context), the
// largest first.
std::vector<std::string> strongest_singles(const AnalysisInput& input, const std::string& site);

// Smallest effects that n clusters can show (P10), as lines for the terminal: from the baseline's own spread,
// since paired differences are not known before the run.
std::string power_table(std::span<const Text> texts, Index comparisons);

// From the position in its unit, and from how far back the pair (token before, token) last occurred: names of
// bins.
std::string position_bin(Index position);
std::string distance_bin(Index distance);  // -1: never before

}  // namespace plait::ablate
