#include "tools/ablate/report/compare.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/base/error.h"
#include "tools/ablate/report/effect.h"
#include "tools/ablate/report/figures.h"
#include "tools/plot/text.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

constexpr std::size_t kMostRows = 24, kMostNames = 6;

std::string data_hash(const Run& run, const std::string& dataset) {
  if (run.manifest.contains("data"))
    for (const Json& data : run.manifest["data"])
      if (text_at(data, "name") == dataset) return text_at(data, "sha256");
  return {};
}

// The right run's place of the left one's primary measure.
int common_measure(const Run& left, const Run& right) {
  const Measure& measure = left.measures[static_cast<std::size_t>(left.primary)];
  const std::string l = data_hash(left, measure.dataset), r = data_hash(right, measure.dataset);
  if (l != r)
    fail("'", left.path, "' and '", right.path, "' do not compare: data set '", measure.dataset,
         "' has sha256 '", l, "' in the first and '", r, "' in the second");
  const auto found = std::find(right.measures.begin(), right.measures.end(), measure);
  if (found == right.measures.end())
    fail("'", right.path, "' does not compare: it has no '", measure.metric, "' on data set '",
         measure.dataset, "' with context '", measure.context_len, "', which '", left.path, "' is about");
  return static_cast<int>(found - right.measures.begin());
}

std::vector<Comparison::Pair> matched(const Run& left, const Run& right, int measure) {
  std::map<std::string, int> by_hash, by_label;
  for (std::size_t i = 0; i < right.conditions.size(); ++i) {
    const ConditionRow& c = right.conditions[i];
    if (!c.spec_sha256.empty()) by_hash.emplace(c.spec_sha256, static_cast<int>(i));
    by_label.emplace(c.design + "\n" + c.name(), static_cast<int>(i));
  }
  const auto counterpart = [&](const ConditionRow& c) {
    if (const auto found = by_hash.find(c.spec_sha256); found != by_hash.end()) return found->second;
    const auto found = by_label.find(c.design + "\n" + c.name());
    return found == by_label.end() ? -1 : found->second;
  };
  std::vector<Comparison::Pair> pairs;
  for (const Result& r : left.results) {
    const ConditionRow& c = left.condition(r);
    if (r.measure != left.primary || c.design == "baseline" || c.design == "random" || c.design == "shapley")
      continue;
    const Result* other = right.find(counterpart(c), measure);
    if (other && r.status != "failed" && other->status != "failed") pairs.push_back({&r, other});
  }
  return pairs;
}

std::vector<Comparison::Difference> differences_of(const Run& left, const Run& right,
                                                   const Comparison::Pair& pair) {
  std::vector<Comparison::Difference> found;
  const auto add = [&](const std::string& what, const std::string& l, const std::string& r) {
    if (l != r) found.push_back({what, l.empty() ? "not recorded" : l, r.empty() ? "not recorded" : r});
  };
  add("model", text_at(left.manifest, "model/hdf5_sha256"), text_at(right.manifest, "model/hdf5_sha256"));
  add("arithmetic", text_at(left.manifest, "arithmetic"), text_at(right.manifest, "arithmetic"));
  add("loss of the whole model", raw_number(pair.left->baseline), raw_number(pair.right->baseline));
  return found;
}

Effect left_effect(const Comparison& c, const Comparison::Pair& p) {
  return effect_of(*p.left, c.left->measure(*p.left));
}
Effect right_effect(const Comparison& c, const Comparison::Pair& p) {
  return effect_of(*p.right, c.right->measure(*p.right));
}

bool sized(const Comparison::Pair& p) { return has_size(*p.left) && has_size(*p.right); }

double gap(const Comparison& c, const Comparison::Pair& p) {
  return right_effect(c, p).value - left_effect(c, p).value;
}

// Pairs with sizes, those that differ most first.
std::vector<Comparison::Pair> by_gap(const Comparison& c) {
  std::vector<Comparison::Pair> pairs;
  std::copy_if(c.pairs.begin(), c.pairs.end(), std::back_inserter(pairs), sized);
  std::stable_sort(pairs.begin(), pairs.end(),
                   [&](auto& a, auto& b) { return std::abs(gap(c, a)) > std::abs(gap(c, b)); });
  return pairs;
}

void tell(Comparison& c) {
  long long equal = 0, apart = 0, lost = 0;
  for (const auto& p : c.pairs) {
    equal += p.left->value == p.right->value;
    lost += p.left->collapsed != p.right->collapsed;
    if (!sized(p)) continue;
    const Effect l = left_effect(c, p), r = right_effect(c, p);
    apart += l.has_interval() && r.has_interval() && (l.low > r.high || r.low > l.high);
  }
  const auto n = static_cast<long long>(c.pairs.size());
  c.headline = equal == n ? cat("All ", grouped(n), " conditions give the same numbers to the last digit.")
                          : cat("Of ", counted(n, "condition"), " in both runs, ", grouped(apart),
                                " differ by more than their intervals.");
  const auto pairs = by_gap(c);
  if (equal < n && !pairs.empty())
    c.detail = cat("They differ most under ", c.left->condition(*pairs[0].left).name(), ": ",
                   short_amount(left_effect(c, pairs[0])), " in the first, ",
                   short_amount(right_effect(c, pairs[0])), " in the second. ");
  if (lost > 0) c.detail += cat(counted(lost, "condition"), " collapsed in one run only. ");
  c.detail += "Intervals that do not overlap differ; of intervals that do, this page says nothing. ";
}

}  // namespace

Comparison compare(const Run& left, const Run& right) {
  Comparison c{&left, &right, matched(left, right, common_measure(left, right)), {}, {}, {}};
  if (c.pairs.empty())
    fail("'", left.path, "' and '", right.path, "' do not compare: no condition is in both");
  c.differences = differences_of(left, right, c.pairs.front());
  tell(c);
  return c;
}

std::string comparison_figures(const Comparison& c) {
  const std::string unit = unit_of(*c.left, c.left->primary);
  ScatterChart scatter;
  ForestChart forest;
  scatter.guide = ScatterChart::Guide::diagonal;
  scatter.title = "Every condition in both runs";
  scatter.x_label = cat("first run, ", unit, " worse");
  scatter.y_label = cat("Second run, ", unit, " worse");
  forest.unit = unit + " worse";
  const auto pairs = by_gap(c);
  for (const auto& p : pairs) {
    const std::string name = c.left->condition(*p.left).name();
    const Effect l = left_effect(c, p), r = right_effect(c, p);
    const std::string tip =
        cat(name, ": ", short_amount(l), " in the first run, ", short_amount(r), " in the second");
    scatter.points.push_back({l.value, r.value, name, scatter.points.size() < kMostNames, 0, tip});
    if (forest.rows.size() < kMostRows)
      forest.rows.push_back({name, l, certainty_of(*p.left), 0, r.value, tip});
  }
  if (pairs.empty()) return {};
  scatter.caption = {"compare-all", scatter.title, forest.rows[0].tip};
  forest.caption = {"compare-most", "Where the two runs differ most", forest.rows[0].tip};
  return figure(scatter, "On the line both runs agree. Named: where they differ most.") +
         figure(forest,
                "Filled, with its interval and numbers: the first run. Hollow circle: the second. Most "
                "different first.");
}

Table comparison_table(const Comparison& c) {
  Table table{{{"Condition", "label"},
               {"First run", "left", true},
               {"Interval", "left_low", true},
               {"", "left_high", true},
               {"Second run", "right", true},
               {"Interval", "right_low", true},
               {"", "right_high", true}},
              {}};
  for (const auto& p : c.pairs) {
    const Effect l = left_effect(c, p), r = right_effect(c, p);
    const std::string name = c.left->condition(*p.left).name();
    const auto cell = [](const Result& result, const std::string& shown) {
      return has_size(result) ? shown : std::string("collapsed");
    };
    table.rows.push_back({{name, name},
                          {cell(*p.left, short_amount(l)), raw_number(l.value)},
                          {short_interval(l), raw_number(l.low)},
                          {"", raw_number(l.high)},
                          {cell(*p.right, short_amount(r)), raw_number(r.value)},
                          {short_interval(r), raw_number(r.low)},
                          {"", raw_number(r.high)}});
  }
  return table;
}

}  // namespace plait::ablate::report
