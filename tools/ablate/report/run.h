// A run folder as read back: what `plait ablate` wrote, checked and joined.
#pragma once

#include <array>
#include <compare>
#include <map>
#include <string>
#include <vector>

#include "runtime/graph/config.h"
#include "tools/plot/effect.h"

namespace plait::ablate::report {

using plot::kNone;

// A row of conditions.csv.
struct ConditionRow {
  std::string id, label, spec_sha256, design, component_type, site, op, heads, phase;
  std::vector<int> layers;  // blocks, ascending; written "0 3 7", "0-2;5" or "[0,3]"
  double alpha = 1;
  long long n_layers_removed = 0, params_removed = 0;
  long long state_bytes_removed = 0, kv_bytes_removed = 0;  // kv: per token

  std::string name() const { return label.empty() ? id : label; }
  std::string intervention() const { return site + "." + op; }  // "mixer.zero"
};

// What a number measures: a metric on a data set under the factors of section 8.
struct Measure {
  std::string dataset, split, task_version, n_shot, context_len, position_bin, metric, filter;
  auto operator<=>(const Measure&) const = default;
};

// Whether it is over all positions, and no row of control ranks (filter "controls:count").
bool is_whole(const Measure& measure);

// A row of results.csv. Numbers that the file leaves empty are NaN.
struct Result {
  int condition = 0, measure = 0;  // indices into Run
  bool higher_is_better = false, collapsed = false;
  double value = kNone, baseline = kNone, delta = kNone;
  long long n_items = 0, n_clusters = 0, n_comparisons = 0;
  double ci_low = kNone, ci_high = kNone, ci_level = kNone;  // of delta
  std::string ci_method, adjust, family_id, status;
  double p_raw = kNone, p_adj = kNone, mde80 = kNone, seconds = kNone;
  long long control_n = 0;
  double control_gap = kNone, control_ci_low = kNone, control_ci_high = kNone;
};

// A row of controls.csv, which has one per draw (target_id, match_kind, draw, condition_id): draws of one set
// share a condition.
struct ControlDraw {
  int target = 0, condition = 0;  // indices into Run
  std::string match_kind;         // count, params, depth
};

// An entry of checks.json: {"id": "C1", "name": "..", "passed": true, "detail": ".."}; passed is null where a
// check does not apply to the model, and a name alone does for an id.
struct Check {
  enum class Outcome { passed, failed, not_applicable };
  std::string id, name, detail;
  Outcome outcome = Outcome::passed;
};

struct Run {
  std::string path;  // as named by the user
  Json manifest;     // run.json
  std::vector<ConditionRow> conditions;
  std::vector<Measure> measures;  // in order of appearance
  std::vector<Result> results;
  std::vector<ControlDraw> draws;
  std::vector<Check> checks;
  std::vector<std::string> layer_types;  // manifest.model.layer_types
  int primary = 0;                       // the measure that figures show unless they say otherwise

  std::string id() const;     // manifest.run_id
  std::string model() const;  // manifest.model.name
  const ConditionRow& condition(const Result& r) const {
    return conditions[static_cast<std::size_t>(r.condition)];
  }
  const Measure& measure(const Result& r) const { return measures[static_cast<std::size_t>(r.measure)]; }
  // Null where a condition was not measured that way.
  const Result* find(int condition, int measure) const;

  std::map<std::pair<int, int>, std::size_t> places;  // (condition, measure) -> index into results
};

// Reads run.json, conditions.csv, results.csv, controls.csv and checks.json of a folder; other files are not
// needed. controls.csv may be absent where no condition is a random control. Throws Error: a sentence that
// names file and line; where results.csv is absent, one that names the failed check that kept it from being
// written.
Run read_run(const std::string& path);

// The block indices of a `layers` field. Throws std::invalid_argument.
std::vector<int> parse_layers(std::string_view text);

// A string of a JSON object by path ("model/name"), or `fallback`; numbers and objects as JSON text.
std::string text_at(const Json& json, const std::string& path, const std::string& fallback = {});

}  // namespace plait::ablate::report
