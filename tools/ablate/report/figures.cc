#include "tools/ablate/report/figures.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/base/error.h"
#include "tools/ablate/report/curves.h"
#include "tools/plot/text.h"
#include "tools/program.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

constexpr int kKinds = 6;  // colours for kinds; the next is for everything else
constexpr int kOther = 6;
constexpr std::size_t kMostRows = 24;     // of a forest: what one still compares by eye
constexpr std::size_t kMostMeasures = 8;  // of a heat map, per intervention
constexpr std::size_t kMostCurves = 6;    // in one panel
constexpr std::size_t kMostTargets = 6;
constexpr std::size_t kWorthATitle = 8;  // letters that names share, below which they say nothing

int kind_index(const Run& run, const std::string& type) {
  const auto kinds = kinds_of(run);
  const auto found = std::find(kinds.begin(), kinds.end(), type);
  return found == kinds.end() ? kOther : static_cast<int>(found - kinds.begin()) % kKinds;
}

std::vector<int> strip_of(const Run& run) {
  std::vector<int> strip;
  for (const std::string& type : run.layer_types) strip.push_back(kind_index(run, type));
  return strip;
}

int kind_of(const Run& run, const ConditionRow& c) {
  if (c.layers.size() == 1 && static_cast<std::size_t>(c.layers[0]) < run.layer_types.size())
    return kind_index(run, run.layer_types[static_cast<std::size_t>(c.layers[0])]);
  return kind_index(run, c.component_type);
}

std::string above(const std::string& unit) {
  return unit.empty() ? "worse than the whole model" : unit + " worse";
}

std::string primary_unit(const Run& run) { return unit_of(run, run.primary); }

LineChart::Series series_of(const Run& run, const Curve& curve, int colour, const std::string& name) {
  LineChart::Series series{name, colour, {}};
  for (const Curve::Point& p : curve.points)
    series.points.push_back({p.x, effect_of(*p.result, run.measure(*p.result)), certainty_of(*p.result),
                             kind_of(run, run.condition(*p.result)), tip_of(run, *p.result)});
  return series;
}

// "largest 0.8 (block 0), smallest -0.01 (block 3)": a chart in words.
std::string extremes(const Run& run, const std::vector<const Result*>& rows) {
  const Result *high = nullptr, *low = nullptr;
  const auto value = [&](const Result* r) { return effect_of(*r, run.measure(*r)).value; };
  long long collapsed = 0;
  for (const Result* r : rows) {
    collapsed += r->collapsed;
    if (!has_size(*r)) continue;
    if (!high || value(r) > value(high)) high = r;
    if (!low || value(r) < value(low)) low = r;
  }
  if (!high) return counted(collapsed, "condition") + ", all collapsed.";
  return cat(counted(static_cast<long long>(rows.size()), "condition"), "; largest ",
             run.condition(*high).name(), ", ", short_amount(effect_of(*high, run.measure(*high))),
             "; smallest ", run.condition(*low).name(), ", ",
             short_amount(effect_of(*low, run.measure(*low))), "; ", grouped(collapsed), " collapsed.");
}

std::vector<const Result*> results_in(const std::vector<Curve>& curves) {
  std::vector<const Result*> rows;
  for (const Curve& curve : curves)
    for (const Curve::Point& p : curve.points) rows.push_back(p.result);
  return rows;
}

// One panel per curve.
LineChart panels_of(const Run& run, const std::vector<Curve>& curves, const Caption& caption,
                    const std::string& x_label) {
  LineChart chart;
  chart.caption = caption;
  chart.x_label = x_label;
  chart.unit = above(primary_unit(run));
  chart.strip = strip_of(run);
  for (const Curve& curve : curves) chart.panels.push_back({curve.name, {series_of(run, curve, kOther, "")}});
  return chart;
}

// Takes the words that all names begin and end with out of them, and returns them for the panel's title:
// "mixer.zero from the bottom" and ".. top" become "bottom" and "top" under "mixer.zero from the \u2026".
std::string shorten(std::vector<LineChart::Series>& series) {
  if (series.size() < 2) return {};
  std::size_t head = series[0].name.size(), tail = head;
  for (const auto& s : series) {
    const std::string& a = series[0].name;
    std::size_t h = 0, t = 0;
    while (h < std::min(a.size(), s.name.size()) && a[h] == s.name[h]) ++h;
    while (t < std::min(a.size(), s.name.size()) && a[a.size() - 1 - t] == s.name[s.name.size() - 1 - t]) ++t;
    head = std::min(head, h), tail = std::min(tail, t);
  }
  const std::string first = series[0].name;
  const std::size_t space = first.substr(0, head).rfind(' ');
  head = space == std::string::npos ? 0 : space + 1;
  const std::size_t last = first.find(' ', first.size() - tail);
  tail = last == std::string::npos ? 0 : first.size() - last;
  for (auto& s : series)
    if (s.name.size() <= head + tail) return {};
  for (auto& s : series) s.name = spaced(s.name.substr(head, s.name.size() - head - tail));
  if (head + tail < kWorthATitle) return {};
  return cat(first.substr(0, head), "\u2026", first.substr(first.size() - tail));
}

// Cuts lines to what one panel can show, and says so.
template <class Lines>
std::string fitting(Lines& lines) {
  if (lines.size() <= kMostCurves) return {};
  const std::string note = cat("The first ", kMostCurves, " of ", lines.size(), "; the table has all. ");
  lines.resize(kMostCurves);
  return note;
}

// All curves in one panel, the first ones where they are many; says so in `note`.
LineChart overlay_of(const Run& run, std::vector<Curve> curves, const Caption& caption,
                     const std::string& x_label, std::string& note) {
  note += fitting(curves);
  LineChart chart;
  chart.caption = caption;
  chart.x_label = x_label;
  LineChart::Panel panel;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    auto series = series_of(run, curves[i], static_cast<int>(i), curves[i].name);
    for (auto& p : series.points) p.kind = static_cast<int>(i);
    panel.series.push_back(std::move(series));
  }
  panel.title = shorten(panel.series);
  if (panel.title.empty()) panel.title = caption.title;
  chart.unit = above(primary_unit(run));
  chart.panels.push_back(std::move(panel));
  return chart;
}

HeatMap::Row heat_row(const Run& run, const Curve& curve, int measure) {
  HeatMap::Row row{curve.name, "", {}, {}, {}, unit_of(run, measure)};
  row.cells.resize(run.layer_types.size());
  row.certainty.resize(run.layer_types.size(), Certainty::unclear);
  row.tips.resize(run.layer_types.size());
  for (const Curve::Point& p : curve.points) {
    const Result* r = run.find(p.result->condition, measure);
    const auto block = static_cast<std::size_t>(p.x);
    if (!r || block >= row.cells.size() || r->status == "failed") continue;
    row.cells[block] = effect_of(*r, run.measure(*r));
    row.certainty[block] = certainty_of(*r);
    row.tips[block] = tip_of(run, *r);
  }
  return row;
}

std::string heat_figure(const Run& run, const std::vector<Curve>& curves) {
  HeatMap map{{"heat", "Effect of every block on every measure", extremes(run, results_in(curves))},
              {},
              strip_of(run)};
  for (const Curve& curve : curves) {
    std::vector<int> indices;
    std::vector<Measure> measures;
    for (int m = 0; m < static_cast<int>(run.measures.size()) && measures.size() < kMostMeasures; ++m) {
      const Measure& measure = run.measures[static_cast<std::size_t>(m)];
      if (!run.find(curve.points[0].result->condition, m) || measure.metric == "shapley" ||
          !is_whole(measure))
        continue;
      indices.push_back(m);
      measures.push_back(measure);
    }
    for (std::size_t i = 0; i < indices.size(); ++i) {
      map.rows.push_back(heat_row(run, curve, indices[i]));
      map.rows.back().label = title_of(measures[i], measures);
    }
  }
  return figure(
      map,
      "Each row has its own scale: the darker, the worse, as a share of the row\u2019s largest effect, "
      "which is written at its end; blue is better than the whole model. Small squares: not clear. The strip "
      "below is the kind of each block.");
}

ForestChart forest_of(const Run& run, const Family& family, std::string& note) {
  ForestChart chart;
  chart.caption = {family.id, family.kicker, extremes(run, family.rows)};
  chart.unit = family.rows.empty() ? "" : above(metric_text(run.measure(*family.rows[0]).metric).unit);
  for (const Result* r : family.rows) {
    if (chart.rows.size() == kMostRows) break;
    const ConditionRow& c = run.condition(*r);
    chart.rows.push_back({c.name(), effect_of(*r, run.measure(*r)), certainty_of(*r), kind_of(run, c), kNone,
                          tip_of(run, *r)});
    if (family.design == "pair") chart.rows.back().reference = sum_of_parts(run, *r);
  }
  if (family.rows.size() > kMostRows)
    note += cat("The ", kMostRows, " most harmful of ", grouped(static_cast<long long>(family.rows.size())),
                "; the table has more. ");
  return chart;
}

std::string forest_figure(const Run& run, const Family& family) {
  std::string note;
  ForestChart chart = forest_of(run, family, note);
  if (family.design == "pair") note += "Small grey circle: the two alone, added up. ";
  if (family.design == "shapley") chart.style = ForestChart::Style::bars;
  return figure(chart, note);
}

std::string overlay_figure(const Run& run, const std::vector<Curve>& curves, const Family& family,
                           const std::string& x_label, LineChart::Axis axis = LineChart::Axis::linear) {
  std::string note;
  LineChart chart =
      overlay_of(run, curves, {family.id, family.kicker, extremes(run, results_in(curves))}, x_label, note);
  chart.axis = axis;
  if (family.design == "window") chart.strip = strip_of(run);
  return figure(chart, note);
}

// One panel per data set, a line for each token before which everything was forgotten.
std::string remembrance_figure(const Run& run, const Family& family) {
  const auto curves = remembrance_curves(run);
  LineChart chart;
  chart.caption = {family.id, family.kicker, extremes(run, family.rows)};
  chart.x_label = "tokens since the cut, first of a bin";
  chart.unit = "nats of KL from the whole model";
  chart.axis = LineChart::Axis::doubling;
  chart.scale = LineChart::Scale::tenfold;
  for (const Curve& curve : curves) {
    const std::string& dataset = run.measure(*curve.points[0].result).dataset;
    if (chart.panels.empty() || chart.panels.back().title != dataset) chart.panels.push_back({dataset, {}});
    auto& lines = chart.panels.back().series;
    const auto colour = static_cast<int>(lines.size());
    lines.push_back(series_of(run, curve, colour, curve.name));
    for (auto& p : lines.back().points) p.kind = colour;
  }
  std::string note;
  for (auto& panel : chart.panels) {
    note = fitting(panel.series);  // the same of every text: each has all cuts
    shorten(panel.series);
  }
  note +=
      "Each line: everything before the token at its end was forgotten, recurrent states and keys alike. The "
      "scale is tenfold: where a line has fallen low, what came before the cut no longer matters.";
  return figure(chart, note);
}

std::string control_figures(const Run& run) {
  std::map<const Result*, ControlChart> charts;
  std::vector<const Result*> order;
  for (const ControlSet& set : control_sets(run)) {
    ControlChart& chart = charts[set.target];
    const std::string name = run.condition(*set.target).name();
    if (chart.panels.empty()) {
      order.push_back(set.target);
      chart.caption = {cat("controls-", order.size()), cat(name, " beside matched random sets"), ""};
      chart.unit = above(primary_unit(run));
    }
    const std::string verdict =
        cat(grouped(set.as_bad), " of ", set.draws.size(), " hurt as much, ", probability(set.p()));
    chart.caption.description += cat("Of random sets of ", matched_by(set.match_kind), ", ", verdict, ". ");
    chart.panels.push_back({cat("Random sets of ", matched_by(set.match_kind)), verdict, set.draws,
                            effect_of(*set.target, run.measure(*set.target)), set.target->collapsed});
  }
  std::string text;
  for (std::size_t i = 0; i < std::min(order.size(), kMostTargets); ++i)
    text += cat("<h3>", escape_html(capitalised(run.condition(*order[i]).name())), "</h3>\n") +
            figure(charts[order[i]],
                   i > 0 ? ""
                         : "Columns: random sets by their effect, blue those that hold block 0. Orange: the "
                           "target, with its interval.");
  if (order.size() > kMostTargets)
    text += cat("<p class=\"fine\">", order.size() - kMostTargets, " more targets in the table.</p>\n");
  return text;
}

std::string amount_tick(double value, double) { return value == 0 ? "0" : human_count(value); }
std::string byte_tick(double value, double) { return value == 0 ? "0" : human_bytes(value); }

std::string saving_figure(const Run& run, const Saving& saving) {
  const auto front = pareto_front(run, saving);
  if (front.empty()) return {};
  ScatterChart chart;
  chart.title = saving.title + " saved";
  chart.x_label = saving.id == "kv_bytes"  ? "bytes per token"
                  : saving.id == "seconds" ? "seconds"
                  : saving.id == "params"  ? "parameters"
                                           : "bytes";
  chart.y_label = capitalised(above(primary_unit(run)));
  chart.x_tick = saving.id == "params" ? amount_tick : saving.id == "seconds" ? nullptr : byte_tick;
  std::vector<std::string> names;
  for (const Result* r : removals(run)) {
    const double saved = saving.of(run, *r);
    if (!(saved > 0)) continue;
    const bool named = std::find(front.begin(), front.end(), r) != front.end();
    chart.points.push_back({saved, effect_of(*r, run.measure(*r)).value, run.condition(*r).name(), named,
                            kind_of(run, run.condition(*r)),
                            tip_of(run, *r) + ", saves " + saving.phrase(saved)});
  }
  for (const Result* r : front)
    if (names.size() < 6)
      names.push_back(cat(run.condition(*r).name(), " ", short_amount(effect_of(*r, run.measure(*r)))));
  chart.caption = {"pareto-" + saving.id, chart.title, "On the front: " + listed(names) + "."};
  return draw(chart, kNarrow).str();
}

std::string pareto_figure(const Run& run) {
  std::string cells;
  for (const Saving& saving : savings()) cells += saving_figure(run, saving);
  return cat("<figure>\n<div class=\"grid\">", cells,
             "</div>\n<figcaption>Each point is a removal. The line joins those that no other beats in both "
             "harm and "
             "saving. Points past the vertical scale, and collapsed ones, are left to the "
             "table.</figcaption>\n</figure>\n");
}

}  // namespace

std::vector<std::string> kinds_of(const Run& run) {
  std::vector<std::string> kinds;
  for (const std::string& type : run.layer_types)
    if (std::find(kinds.begin(), kinds.end(), type) == kinds.end()) kinds.push_back(type);
  return kinds;
}

std::string tip_of(const Run& run, const Result& r) {
  const Effect e = effect_of(r, run.measure(r));
  std::string text = run.condition(r).name() + ": ";
  if (r.collapsed) return text + "collapsed";
  if (!has_size(r)) return text + "failed";
  text += cat(short_amount(e), " ", metric_text(run.measure(r).metric).unit);
  if (e.has_interval()) text += ", " + short_interval(e);
  return std::isfinite(r.p_adj) ? cat(text, ", adjusted ", probability(r.p_adj)) : text;
}

std::string model_figure(const Run& run) {
  const auto strip = strip_of(run);
  const auto n = static_cast<double>(strip.size());
  const auto row = [&](double width, const std::string& name) {
    Svg svg(width, 40, name, "The blocks of " + run.model(),
            cat(strip.size(), " blocks, in order: ", listed(run.layer_types)));
    const double step = std::min(width / n, 44.0);
    for (std::size_t i = 0; i < strip.size(); ++i) {
      svg.rect(step * static_cast<double>(i), 0, step - (step > 6 ? 2 : 0), 22, cat("fill k", strip[i]),
               cat("block ", i, ": ", spaced(run.layer_types[i])));
      const auto every = static_cast<std::size_t>(std::ceil(22 / step));
      if (i % every == 0)
        svg.text(std::max(step * (static_cast<double>(i) + 0.5) - 1, kLabelSize / 2), 37, Anchor::middle,
                 "muted", std::to_string(i));
    }
    return svg.str();
  };
  std::string key = "<ul class=\"key\">";
  for (const std::string& kind : kinds_of(run)) {
    Svg mark(14, 14, "key-" + kind, spaced(kind), "its mark");
    mark.marker(kind_index(run, kind), 7, 7, 5, Svg::Fill::filled);
    const auto count = std::count(run.layer_types.begin(), run.layer_types.end(), kind);
    key += cat("<li>", mark.str(), escape_html(spaced(kind)), " <span>", count, "</span></li>");
  }
  return cat("<figure class=\"model\">\n<div class=\"wide\">", row(kWide, "model-wide"),
             "</div>\n<div class=\"narrow\">", row(kNarrow, "model-narrow"), "</div>\n", key,
             "</ul>\n</figure>\n");
}

std::string single_figures(const Run& run) {
  const auto curves = single_curves(run);
  if (curves.empty()) return {};
  return figure(panels_of(run, curves,
                          {"single", "Effect of one block at a time", extremes(run, results_in(curves))},
                          "block"),
                "All panels have one scale; a value past its end is written out.") +
         heat_figure(run, curves);
}

std::string figures_of(const Run& run, const Family& family) {
  const std::string& d = family.design;
  if (d == "random") return control_figures(run);
  if (d == "window") return overlay_figure(run, window_curves(run), family, "first block of the window");
  if (d == "cumulative") return overlay_figure(run, cumulative_curves(run), family, "blocks removed");
  if (d == "dose") return overlay_figure(run, dose_curves(run), family, "strength");
  if (d == "context")
    return overlay_figure(run, context_curves(run), family, "tokens of context", LineChart::Axis::doubling);
  if (d == "position")
    return overlay_figure(run, position_curves(run), family, "position, first of a bin",
                          LineChart::Axis::doubling);
  if (d == "distance")
    return overlay_figure(run, distance_curves(run), family, "tokens since the pair was seen",
                          LineChart::Axis::doubling);
  if (d == "remembrance") return remembrance_figure(run, family);
  if (d == "pareto") return pareto_figure(run);
  return forest_figure(run, family);
}

}  // namespace plait::ablate::report
