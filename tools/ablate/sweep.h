// Runs all conditions over all units in the wavefront and journals what they score.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/run/wavefront.h"
#include "tools/ablate/corpus.h"
#include "tools/ablate/journal.h"

namespace plait::ablate {

struct Sweep {
  std::shared_ptr<const Model> model;
  std::vector<std::shared_ptr<const EditPlan>> plans;  // by condition; the first is the baseline
  std::span<const Text> texts;
  std::span<const Unit> units;
  WavefrontOptions options;
  // Called with each unit's scores before they are journaled, and asked before a unit is run.
  std::function<void(const UnitScores& scores)> observe = {};
  std::function<bool(const Unit& unit)> skip = {};
  // Called after every batch with the share of the tokens that is done.
  std::function<void(double share, const WavefrontCost& cost)> progress = {};
};

struct SweepCost {
  WavefrontCost wavefront;  // of all units of the journal, as if the sweep had never been interrupted
  double seconds = 0;       // of what was run now
  Index resumed = 0;        // units the journal held
};

// Scores what the journal does not hold yet and is not skipped. A batch's record is on the disk before the
// next batch begins.
SweepCost run_sweep(const Sweep& sweep, Journal& journal);

}  // namespace plait::ablate
