#include "tools/ablate/report/controls.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace plait::ablate::report {
namespace {

bool as_bad(const ControlSet::Draw& draw, const Result& target, double harm) {
  if (draw.collapsed || target.collapsed) return draw.collapsed;
  return draw.harm >= harm;
}

const Result* rank_of(const Run& run, const ControlDraw& draw) {
  Measure measure = run.measures[static_cast<std::size_t>(run.primary)];
  measure.filter = "controls:" + draw.match_kind;
  const auto found = std::find(run.measures.begin(), run.measures.end(), measure);
  return found == run.measures.end() ? nullptr
                                     : run.find(draw.target, static_cast<int>(found - run.measures.begin()));
}

}  // namespace

double ControlSet::p() const {
  if (rank && std::isfinite(rank->p_adj)) return rank->p_adj;
  return (as_bad + 1.0) / (static_cast<double>(draws.size()) + 1);
}

std::vector<ControlSet> control_sets(const Run& run) {
  std::vector<ControlSet> sets;
  std::map<std::pair<int, std::string>, std::size_t> places;
  for (const ControlDraw& d : run.draws) {
    const Result* target = run.find(d.target, run.primary);
    const Result* draw = run.find(d.condition, run.primary);
    if (!target || !draw || !std::isfinite(target->delta) || !std::isfinite(draw->delta)) continue;
    const auto [at, fresh] = places.emplace(std::pair(d.target, d.match_kind), sets.size());
    if (fresh) sets.push_back({target, d.match_kind, {}, 0, rank_of(run, d)});
    ControlSet& set = sets[at->second];
    const auto& layers = run.condition(*draw).layers;
    set.draws.push_back({effect_of(*draw, run.measure(*draw)).value, draw->collapsed,
                         !layers.empty() && layers.front() == 0});
    set.as_bad += as_bad(set.draws.back(), *target, effect_of(*target, run.measure(*target)).value);
  }
  return sets;
}

std::string matched_by(const std::string& kind) {
  if (kind == "count") return "as many blocks";
  if (kind == "params") return "as many parameters";
  if (kind == "depth") return "as many blocks at like depth";
  return kind;
}

}  // namespace plait::ablate::report
