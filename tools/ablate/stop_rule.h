// Stopping early, if the plan declared it (P14): windows come in an order drawn beforehand, and a text's
// context is done once every tested condition is settled by its anytime-valid interval
// (statistics/confidence_sequence.h).
#pragma once

#include <map>
#include <span>
#include <utility>
#include <vector>

#include "tools/ablate/corpus.h"
#include "tools/ablate/journal.h"
#include "tools/ablate/statistics/confidence_sequence.h"

namespace plait::ablate {

inline constexpr double kNegligible =
    0.01;  // nats per token: an effect known to be smaller is settled as well

// Windows are the clusters.
class StopRule {
 public:
  // tested: conditions that have to be settled; the baseline is condition 0 of the journal.
  StopRule(std::span<const Unit> units, std::vector<int> tested);

  void add(const UnitScores& scores);
  // Whether the text and context of the unit need no more windows.
  bool settled(const Unit& unit) const;
  // The interval of a tested condition's mean effect, in nats per token.
  Interval interval(int text, Index context, int condition) const;

 private:
  using Group = std::pair<int, Index>;  // text, context
  static Group group_of(const Unit& unit) { return {unit.text, unit.context}; }
  std::vector<Group> group_of_unit_;
  std::vector<int> tested_;
  std::map<Group, std::map<int, ConfidenceSequence>> sequences_;
};

// The units of each text and context in an order drawn by the seed.
void shuffle(std::vector<Unit>& units, std::uint64_t seed);

}  // namespace plait::ablate
