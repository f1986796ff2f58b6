// A study on a model: every condition once, and who asks for it.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/spec.h"

namespace plait::ablate {

// A condition under one of its names. Two designs that come to the same edits share a condition.
struct Use {
  int condition;  // index into Plan::conditions
  std::string id, label, design;
  std::string match_of, match_kind;  // random: the target's condition id; count, params, depth
  int draw = -1;
};

// What was drawn for one target in one way.
struct ControlReport {
  std::string target, match;
  Index asked = 0, drawn = 0, distinct = 0;  // distinct: conditions other than the target
  bool exhaustive = false;
  double possible = 0, tolerance = 0, deviation = 0;  // controls.h
  Index outside = 0;
  std::string note;
};

struct Plan {
  // The baseline first; no two have equal edits. A condition's id, label and design are its first use's.
  std::vector<Condition> conditions;
  std::vector<Use> uses;  // all of them, in the order asked; the first use of each condition included
  std::vector<ControlReport> controls;
  std::vector<Shapley> shapley;           // `at` indexes conditions; 0 = baseline
  std::vector<Design> deferred;           // pair designs that wait for the single sweep
  int find(const std::string& id) const;  // the condition of that id, under any of its names; -1 if none
};

// Order: baseline, the spec's conditions, the designs, the controls; the same in every run. Throws Error
// naming the condition or design when the model lacks what it names, and when a control's target is unknown
// or is no set of places of one site.
Plan plan_of(const Study& study, const Model& model);

// The pairs among the strongest singles, once they are known: conditions a deferred design adds to the plan.
// `strongest`: ids of single conditions of the design's site, the strongest first.
void add_pairs(Plan& plan, const Study& study, const Model& model, const Design& design,
               const std::vector<std::string>& strongest);

// Throws Error naming the condition when the executor refuses one of its edits. Edits that need a recorded
// reference (mean, resample, patch, zero_rescale, swap) are left to those who have it.
void check_edits(const Plan& plan, const Model& model);

// For run.json: uses, controls, Shapley orders.
Json to_json(const Plan& plan);
// controls.csv: target_id, match_kind, draw, condition_id.
std::string controls_csv(const Plan& plan);
std::string conditions_csv(const Plan& plan);

// Studies by name, for any model with blocks. Throws Error listing the names.
//   hybrid2026  the protocol of arXiv 2603.22473 with its operator apart from others: groups by kind, single
//               sweep, thirds, first and last n of each kind, random controls (layers are skipped, in
//               parallel blocks branches are zeroed), and the same with the mixer and the MLP apart
//   full        every design
Study study_named(const std::string& name, const Model& model);
const std::vector<std::string>& study_names();

}  // namespace plait::ablate
