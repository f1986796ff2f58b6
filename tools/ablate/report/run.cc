#include "tools/ablate/report/run.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <unordered_map>

#include "runtime/base/error.h"
#include "tools/ablate/report/csv.h"
#include "tools/program.h"

namespace plait::ablate::report {
namespace {

namespace fs = std::filesystem;
using Places = std::unordered_map<std::string, int>;  // condition id -> index

constexpr int kMostLayers = 100'000;

std::string inside(const std::string& folder, const char* name) { return (fs::path(folder) / name).string(); }

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

CsvTable read_csv(const std::string& path) { return CsvTable(read_file(path), path); }

const Json& required(const Json& json, const char* key, const std::string& path) {
  if (!json.is_object() || !json.contains(key)) fail("'", path, "' lacks the key '", key, "'");
  return json[key];
}

Json read_manifest(const std::string& path) {
  Json json = read_json(path);
  if (!required(json, "run_id", path).is_string()) fail("'", path, "': 'run_id' is no string");
  const Json& types = required(required(json, "model", path), "layer_types", path);
  const bool strings = types.is_array() &&
                       std::all_of(types.begin(), types.end(), [](const Json& t) { return t.is_string(); });
  if (!strings) fail("'", path, "': 'model.layer_types' is no list of strings");
  return json;
}

std::vector<Check> read_checks(const std::string& path) {
  const Json json = read_json(path);
  std::vector<Check> checks;
  for (const Json& entry : required(json, "checks", path)) {
    const Json& passed = required(entry, "passed", path);
    if (!passed.is_boolean() && !passed.is_null())
      fail("'", path, "': 'passed' is neither true, false nor null");
    const auto outcome = passed.is_null()     ? Check::Outcome::not_applicable
                         : passed.get<bool>() ? Check::Outcome::passed
                                              : Check::Outcome::failed;
    required(entry, "name", path);
    const std::string name = text_at(entry, "name");
    checks.push_back({text_at(entry, "id", name), name, text_at(entry, "detail"), outcome});
  }
  return checks;
}

[[noreturn]] void refuse_without_results(const std::string& folder) {
  const std::string path = inside(folder, "checks.json");
  if (exists(path))
    for (const Check& check : read_checks(path))
      if (check.outcome == Check::Outcome::failed)
        fail("'", folder, "' holds no results.csv, because check ", check.id, " failed",
             check.detail.empty() ? "" : ": " + check.detail);
  fail("'", folder,
       "' holds no results.csv: the study was not finished; 'plait ablate --resume' goes on with it");
}

void read_conditions(Run& run, Places& places) {
  const CsvTable table = read_csv(inside(run.path, "conditions.csv"));
  table.require({"condition_id", "label", "spec_sha256", "design", "component_type", "site", "layers",
                 "heads", "phase", "operator", "alpha", "n_layers_removed", "params_removed",
                 "state_bytes_removed", "kv_bytes_removed"});
  for (std::size_t r = 0; r < table.size(); ++r) {
    const auto text = [&](const char* column) { return std::string(table.text(r, column)); };
    const auto count = [&](const char* column) { return table.integer(r, column, 0); };
    ConditionRow c{text("condition_id"),
                   text("label"),
                   text("spec_sha256"),
                   text("design"),
                   text("component_type"),
                   text("site"),
                   text("operator"),
                   text("heads"),
                   text("phase"),
                   {},
                   table.number(r, "alpha"),
                   count("n_layers_removed"),
                   count("params_removed"),
                   count("state_bytes_removed"),
                   count("kv_bytes_removed")};
    try {
      c.layers = parse_layers(table.text(r, "layers"));
    } catch (const std::invalid_argument& why) {
      table.refuse(r, "layers", why.what());
    }
    if (!places.emplace(c.id, static_cast<int>(r)).second)
      table.refuse(r, "condition_id", "names a condition of an earlier line");
    run.conditions.push_back(std::move(c));
  }
}

int place_of(const CsvTable& table, std::size_t row, const char* column, const Places& places) {
  const auto found = places.find(std::string(table.text(row, column)));
  if (found == places.end()) table.refuse(row, column, "is no condition of conditions.csv");
  return found->second;
}

Measure measure_of(const CsvTable& table, std::size_t row) {
  const auto text = [&](const char* column) { return std::string(table.text(row, column)); };
  return {text("dataset"),     text("split"),        text("task_version"), text("n_shot"),
          text("context_len"), text("position_bin"), text("metric"),       text("filter")};
}

Result result_of(const CsvTable& table, std::size_t row) {
  const auto number = [&](const char* column) { return table.number(row, column); };
  const auto count = [&](const char* column) { return table.integer(row, column, 0); };
  const auto text = [&](const char* column) { return std::string(table.text(row, column)); };
  Result r;
  r.higher_is_better = table.flag(row, "higher_is_better");
  r.collapsed = table.flag(row, "collapsed") || table.text(row, "status") == "collapsed";
  r.value = number("value"), r.baseline = number("baseline_value"), r.delta = number("delta");
  r.n_items = count("n_items"), r.n_clusters = count("n_clusters"), r.n_comparisons = count("n_comparisons");
  r.ci_low = number("ci_low"), r.ci_high = number("ci_high"), r.ci_level = number("ci_level");
  r.ci_method = text("ci_method"), r.adjust = text("adjust"), r.family_id = text("family_id");
  r.status = text("status");
  r.p_raw = number("p_raw"), r.p_adj = number("p_adj"), r.mde80 = number("mde80"),
  r.seconds = number("seconds");
  r.control_n = count("control_n");
  r.control_gap = number("control_gap");
  r.control_ci_low = number("control_ci_low"), r.control_ci_high = number("control_ci_high");
  return r;
}

void read_results(Run& run, const Places& places) {
  const CsvTable table = read_csv(inside(run.path, "results.csv"));
  table.require(
      {"condition_id",     "dataset",   "split",          "context_len", "position_bin", "metric",
       "higher_is_better", "value",     "baseline_value", "delta",       "n_items",      "n_clusters",
       "ci_low",           "ci_high",   "ci_level",       "ci_method",   "p_raw",        "p_adj",
       "adjust",           "family_id", "n_comparisons",  "collapsed",   "status"});
  std::map<Measure, int> known;
  for (std::size_t r = 0; r < table.size(); ++r) {
    Result result = result_of(table, r);
    result.condition = place_of(table, r, "condition_id", places);
    const Measure measure = measure_of(table, r);
    if (measure.metric.empty()) table.refuse(r, "metric", "names no metric");
    const auto [at, fresh] = known.emplace(measure, static_cast<int>(run.measures.size()));
    if (fresh) run.measures.push_back(measure);
    result.measure = at->second;
    if (!run.places.emplace(std::pair(result.condition, result.measure), run.results.size()).second)
      table.refuse(r, "condition_id", "has this metric on this data set in an earlier line already");
    run.results.push_back(std::move(result));
  }
  if (run.results.empty()) fail("'", table.path(), "' holds a header and no results");
}

void read_controls(Run& run, const Places& places) {
  const std::string path = inside(run.path, "controls.csv");
  const bool wanted = std::any_of(run.conditions.begin(), run.conditions.end(),
                                  [](const ConditionRow& c) { return c.design == "random"; });
  if (!wanted && !exists(path)) return;
  const CsvTable table = read_csv(path);
  table.require({"target_id", "match_kind", "draw", "condition_id"});
  for (std::size_t r = 0; r < table.size(); ++r)
    run.draws.push_back({place_of(table, r, "target_id", places), place_of(table, r, "condition_id", places),
                         std::string(table.text(r, "match_kind"))});
}

// Loss in nats over all positions, where most conditions have it: what the protocol calls primary.
int primary_measure(const Run& run) {
  std::vector<std::array<int, 3>> merit(run.measures.size());
  for (const Result& r : run.results) ++merit[static_cast<std::size_t>(r.measure)][2];
  for (std::size_t m = 0; m < merit.size(); ++m) {
    const Measure& measure = run.measures[m];
    merit[m][0] = measure.metric == "nll";
    merit[m][1] = is_whole(measure);
  }
  return static_cast<int>(std::max_element(merit.begin(), merit.end()) - merit.begin());
}

}  // namespace

std::vector<int> parse_layers(std::string_view text) {
  std::set<int> layers;
  const auto separates = [](char c) { return c == ' ' || c == ',' || c == ';' || c == '[' || c == ']'; };
  const char* p = text.data();
  const char* const end = p + text.size();
  const auto index = [&] {
    int value = 0;
    const auto [after, error] = std::from_chars(p, end, value);
    if (error != std::errc() || value < 0 || value >= kMostLayers)
      throw std::invalid_argument("is no list of block indices");
    p = after;
    return value;
  };
  while (p < end) {
    if (separates(*p)) {
      ++p;
      continue;
    }
    const int first = index();
    int last = first;
    if (p < end && *p == '-') ++p, last = index();
    if (last < first || (p < end && !separates(*p)))
      throw std::invalid_argument("is no list of block indices");
    for (int i = first; i <= last; ++i) layers.insert(i);
  }
  return {layers.begin(), layers.end()};
}

bool is_whole(const Measure& measure) {
  const bool all = measure.position_bin.empty() || measure.position_bin == "all";
  return all && !measure.filter.starts_with("controls:");
}

std::string text_at(const Json& json, const std::string& path, const std::string& fallback) {
  const Json::json_pointer pointer("/" + path);
  if (!json.contains(pointer)) return fallback;
  const Json& value = json[pointer];
  if (value.is_null()) return fallback;
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Run::id() const { return text_at(manifest, "run_id"); }
std::string Run::model() const { return text_at(manifest, "model/name", "the model"); }

const Result* Run::find(int condition, int measure) const {
  const auto found = places.find({condition, measure});
  return found == places.end() ? nullptr : &results[found->second];
}

Run read_run(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) fail("'", path, "' is no folder; a report is made of a run folder");
  Run run;
  run.path = path;
  run.manifest = read_manifest(inside(path, "run.json"));
  run.layer_types = run.manifest["model"]["layer_types"].get<std::vector<std::string>>();
  if (!exists(inside(path, "results.csv"))) refuse_without_results(path);
  Places places;
  read_conditions(run, places);
  read_results(run, places);
  read_controls(run, places);
  run.checks = read_checks(inside(path, "checks.json"));
  run.primary = primary_measure(run);
  return run;
}

}  // namespace plait::ablate::report
