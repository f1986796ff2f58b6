#include "tools/ablate/report/curves.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "runtime/base/error.h"
#include "tools/ablate/report/effect.h"
#include "tools/plot/text.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

// Curves by name, in the order in which the names first come up.
class Curves {
 public:
  // group: tells curves of one name apart.
  void add(const std::string& name, double x, const Result* result, const std::string& group = "") {
    const auto [at, fresh] = places_.emplace(std::pair(group, name), curves_.size());
    if (fresh) curves_.push_back({name, {}});
    curves_[at->second].points.push_back({x, result});
  }
  std::vector<Curve> take() {
    for (Curve& curve : curves_)
      std::stable_sort(curve.points.begin(), curve.points.end(), [](auto& a, auto& b) { return a.x < b.x; });
    return std::move(curves_);
  }

 private:
  std::map<std::pair<std::string, std::string>, std::size_t> places_;
  std::vector<Curve> curves_;
};

void drop_single_points(std::vector<Curve>& curves) {
  std::erase_if(curves, [](const Curve& curve) { return curve.points.size() < 2; });
}

bool of_one_block(const ConditionRow& c) { return c.layers.size() == 1 && c.heads.empty(); }

// What names the curve a result lies on: its intervention, and its component where the same blocks are
// touched in more than one way (parallel branches).
class Naming {
 public:
  Naming(const Run& run, const std::vector<const Result*>& results) : run_(run) {
    std::map<std::pair<std::string, std::vector<int>>, int> counts;
    for (const Result* r : results) {
      const ConditionRow& c = run.condition(*r);
      if (c.heads.empty() && ++counts[{c.intervention(), c.layers}] > 1) branched_.insert(c.intervention());
    }
  }

  std::string operator()(const Result& r) const {
    const ConditionRow& c = run_.condition(r);
    return c.intervention() + (branched_.contains(c.intervention()) ? " of " + spaced(c.component_type) : "");
  }

 private:
  const Run& run_;
  std::set<std::string> branched_;
};

std::optional<double> as_number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The first number of "PREFIX64-127".
std::optional<double> first_after(const std::string& prefix, const std::string& bin) {
  if (!bin.starts_with(prefix)) return std::nullopt;
  const auto low = as_number(bin.substr(prefix.size(), bin.find('-', prefix.size()) - prefix.size()));
  return low ? std::optional(std::max(1.0, *low)) : std::nullopt;
}

template <class Number>
std::vector<Curve> factor_curves(const Run& run, std::string Measure::*factor, Number&& number) {
  const Measure& primary = run.measures[static_cast<std::size_t>(run.primary)];
  Curves curves;
  for (const Result& r : run.results) {
    Measure measure = run.measure(r);
    const std::optional<double> x = number(measure.*factor);
    measure.*factor = primary.*factor;
    const std::string& design = run.condition(r).design;
    if (x && measure == primary && r.status != "failed" && (design == "group" || design == "spec"))
      curves.add(run.condition(r).name(), *x, &r);
  }
  std::vector<Curve> found = curves.take();
  drop_single_points(found);
  return found;
}

}  // namespace

std::vector<const Result*> results_of(const Run& run, const std::string& design) {
  std::vector<const Result*> found;
  for (const Result& r : run.results)
    if (r.measure == run.primary && run.condition(r).design == design && r.status != "failed")
      found.push_back(&r);
  return found;
}

std::vector<Curve> single_curves(const Run& run) {
  const auto results = results_of(run, "single");
  const Naming name(run, results);
  Curves curves;
  for (const Result* r : results)
    if (of_one_block(run.condition(*r))) curves.add(name(*r), run.condition(*r).layers[0], r);
  return curves.take();
}

std::vector<Curve> window_curves(const Run& run) {
  const auto results = results_of(run, "window");
  const Naming name(run, results);
  Curves curves;
  for (const Result* r : results) {
    const auto& layers = run.condition(*r).layers;
    if (!layers.empty()) curves.add(cat(name(*r), ", ", layers.size(), " wide"), layers.front(), r);
  }
  return curves.take();
}

// What the id of a cumulative design says, whatever kinds a set of it touches:
// "cumulative.branch.zero.mamba2.first.3" is of "branch.zero of mamba2 from the bottom". Empty for other ids.
std::string series_of(const ConditionRow& c) {
  const std::string begin = cat("cumulative.", c.intervention());
  if (!c.id.starts_with(begin)) return {};
  for (const auto& [word, end] : {std::pair(".first.", "bottom"), std::pair(".last.", "top")}) {
    const auto at = c.id.rfind(word);
    if (at == std::string::npos || at < begin.size()) continue;
    const std::string kind = c.id.substr(begin.size(), at - begin.size());
    return cat(c.intervention(), kind.empty() ? "" : cat(" of ", spaced(kind.substr(1))), " from the ", end);
  }
  return {};
}

std::vector<Curve> cumulative_curves(const Run& run) {
  const auto results = results_of(run, "cumulative");
  const Naming name(run, results);
  std::map<std::string, std::pair<int, int>>
      ends;  // lowest and highest block that any condition of a name touches
  for (const Result* r : results) {
    const auto& layers = run.condition(*r).layers;
    if (layers.empty()) continue;
    const auto [at, fresh] = ends.emplace(name(*r), std::pair(layers.front(), layers.back()));
    at->second = {std::min(at->second.first, layers.front()), std::max(at->second.second, layers.back())};
  }
  Curves curves;
  for (const Result* r : results) {
    const auto& layers = run.condition(*r).layers;
    if (layers.empty()) continue;
    if (const std::string series = series_of(run.condition(*r)); !series.empty()) {
      curves.add(series, static_cast<double>(layers.size()), r);
      continue;
    }
    const auto [low, high] = ends[name(*r)];
    const auto count = static_cast<double>(layers.size());
    if (layers.front() == low) curves.add(name(*r) + " from the bottom", count, r);
    if (layers.back() == high) curves.add(name(*r) + " from the top", count, r);
  }
  return curves.take();
}

std::vector<Curve> dose_curves(const Run& run) {
  Curves curves;
  for (const Result* r : results_of(run, "dose")) {
    const ConditionRow& c = run.condition(*r);
    std::string place = cat(c.intervention(), ", ", spaced(c.component_type));
    if (c.layers.size() == 1) place += cat(", block ", c.layers[0]);
    if (!c.heads.empty()) place += ", heads " + c.heads;
    if (c.phase != "always" && !c.phase.empty()) place += ", " + spaced(c.phase);
    curves.add(place, c.alpha, r);
  }
  return curves.take();
}

std::vector<Curve> context_curves(const Run& run) {
  return factor_curves(run, &Measure::context_len, [](const std::string& text) { return as_number(text); });
}

std::vector<Curve> position_curves(const Run& run) {
  return factor_curves(run, &Measure::position_bin,
                       [](const std::string& bin) { return first_after("position ", bin); });
}

std::vector<Curve> distance_curves(const Run& run) {
  return factor_curves(run, &Measure::position_bin,
                       [](const std::string& bin) { return first_after("pair last seen: ", bin); });
}

std::vector<Curve> remembrance_curves(const Run& run) {
  const std::string& context = run.measures[static_cast<std::size_t>(run.primary)].context_len;
  Curves curves;
  for (const Result& r : run.results) {
    const Measure& measure = run.measure(r);
    const auto x = first_after("history ", measure.position_bin);
    if (x && measure.metric == "effrem" && measure.context_len == context && has_size(r))
      curves.add(run.condition(r).name(), *x, &r, measure.dataset);
  }
  std::vector<Curve> found = curves.take();
  drop_single_points(found);
  std::map<std::string, std::size_t> place;  // of a data set
  const auto dataset = [&](const Curve& c) { return run.measure(*c.points[0].result).dataset; };
  for (const Curve& curve : found) place.emplace(dataset(curve), place.size());
  std::stable_sort(found.begin(), found.end(), [&](const Curve& a, const Curve& b) {
    return place.at(dataset(a)) < place.at(dataset(b));
  });
  return found;
}

}  // namespace plait::ablate::report
