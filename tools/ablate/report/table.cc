#include "tools/ablate/report/table.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "tools/ablate/report/controls.h"
#include "tools/ablate/report/csv.h"
#include "tools/ablate/report/effect.h"
#include "tools/plot/text.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

constexpr std::size_t kMostMeasures = 24;  // columns a table of measures has at most

Table::Cell words(const std::string& text) { return {text, text}; }
Table::Cell count(long long n) { return {grouped(n), std::to_string(n)}; }

Table::Cell probability_cell(double p) {
  if (!std::isfinite(p)) return {"\u2013", ""};
  return {p < 0.001 ? "< 0.001" : decimal(p, 3), raw_number(p)};
}

std::string plain_list(const std::vector<int>& layers) {
  std::vector<std::string> words;
  for (const int layer : layers) words.push_back(std::to_string(layer));
  return joined(words, " ");
}

std::string verdict(const Result& r) {
  switch (certainty_of(r)) {
    case Certainty::clear:
      return "clear";
    case Certainty::unclear:
      return "not clear";
    case Certainty::collapsed:
      break;
  }
  return "collapsed";
}

Table::Cell per_unit(double effect, double units, bool sized) {
  if (!(units > 0)) return {"\u2013", ""};
  return {sized ? short_amount({effect / units, kNone, kNone}) : "\u2013", raw_number(effect / units)};
}

std::vector<Table::Cell> family_row(const Run& run, const Result& r) {
  const ConditionRow& c = run.condition(r);
  const Effect e = effect_of(r, run.measure(r));
  const bool sized = has_size(r);
  return {{c.name(), c.name()},
          {c.id, c.id},
          {c.layers.empty() ? "\u2013" : blocks(c.layers).substr(blocks(c.layers).find(' ') + 1),
           plain_list(c.layers)},
          {sized ? short_amount(e) : "collapsed", raw_number(e.value)},
          {sized ? short_interval(e) : "\u2013", raw_number(e.low)},
          {"", raw_number(e.high)},
          probability_cell(r.p_adj),
          words(verdict(r)),
          count(c.n_layers_removed),
          per_unit(e.value, static_cast<double>(c.n_layers_removed), sized),
          count(c.params_removed),
          per_unit(e.value, static_cast<double>(c.params_removed) / 1e6, sized)};
}

}  // namespace

std::string raw_number(double value) {
  if (!std::isfinite(value)) return {};
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
}

// A column without a title is for programs only.
std::string html_of(const Table& table, std::size_t most, const std::string& elsewhere) {
  std::string text = "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>";
  for (const auto& c : table.columns)
    if (!c.title.empty())
      text +=
          cat("<th scope=\"col\"", c.number ? " class=\"number\"" : "", ">", escape_html(c.title), "</th>");
  text += "</tr></thead>\n<tbody>\n";
  for (std::size_t r = 0; r < std::min(most, table.rows.size()); ++r) {
    text += "<tr>";
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
      if (table.columns[c].title.empty()) continue;
      const std::string cell = escape_html(table.rows[r][c].shown);
      text += c == 0 ? cat("<th scope=\"row\">", cell, "</th>")
                     : cat(table.columns[c].number ? "<td class=\"number\">" : "<td>", cell, "</td>");
    }
    text += "</tr>\n";
  }
  text += "</tbody></table></div>\n";
  if (table.rows.size() > most)
    text += cat("<p class=\"fine\">", grouped(static_cast<long long>(table.rows.size() - most)),
                " more rows in ", escape_html(elsewhere), ".</p>\n");
  return text;
}

std::string latex_of(const Table& table) {
  std::string align, head;
  for (const auto& c : table.columns) {
    if (c.title.empty()) continue;
    align += c.number ? 'r' : 'l';
    head += (head.empty() ? "" : " & ") + escape_latex(c.title);
  }
  std::string text = cat("% written by plait report; needs \\usepackage{booktabs}\n\\begin{tabular}{", align,
                         "}\n\\toprule\n", head, " \\\\\n\\midrule\n");
  for (const auto& row : table.rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c)
      if (!table.columns[c].title.empty()) line += (c == 0 ? "" : " & ") + escape_latex(row[c].shown);
    text += line + " \\\\\n";
  }
  return text + "\\bottomrule\n\\end{tabular}\n";
}

std::string csv_of(const Table& table) {
  std::vector<std::string> fields;
  for (const auto& column : table.columns) fields.push_back(csv_field(column.key));
  std::string text = joined(fields, ",") + "\n";
  for (const auto& row : table.rows) {
    fields.clear();
    for (const auto& cell : row) fields.push_back(csv_field(cell.raw));
    text += joined(fields, ",");
    text += '\n';
  }
  return text;
}

Table family_table(const Run& run, const Family& family) {
  const std::string unit = family.rows.empty() ? "" : metric_text(run.measure(*family.rows[0]).metric).unit;
  Table table{{{"Condition", "label"},
               {"", "condition_id"},
               {"Blocks", "layers"},
               {"Effect, " + unit, "effect", true},
               {"Interval", "low", true},
               {"", "high", true},
               {"p adjusted", "p_adj", true},
               {"Verdict", "verdict"},
               {"Blocks removed", "n_layers_removed", true},
               {"Per block", "effect_per_block", true},
               {"Parameters removed", "params_removed", true},
               {"Per million", "effect_per_million_parameters", true}},
              {}};
  // One condition measured at several lengths of context is several rows.
  const bool lengths = family.design == "context", remembrance = family.design == "remembrance",
             bins = family.design == "position" || family.design == "distance" || remembrance;
  if (lengths) table.columns.insert(table.columns.begin() + 1, {"Context", "context_len", true});
  if (bins) table.columns.insert(table.columns.begin() + 1, {"Bin", "position_bin"});
  if (remembrance) table.columns.insert(table.columns.begin() + 1, {"Text", "dataset"});
  for (const Result* r : family.rows) {
    auto row = family_row(run, *r);
    if (lengths) row.insert(row.begin() + 1, words(run.measure(*r).context_len));
    if (bins) row.insert(row.begin() + 1, words(run.measure(*r).position_bin));
    if (remembrance) row.insert(row.begin() + 1, words(run.measure(*r).dataset));
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table measure_table(const Run& run, const Family& family) {
  Table table{{{"Condition", "label"}}, {}};
  const auto measured = [&](int m) {
    return std::any_of(family.rows.begin(), family.rows.end(),
                       [&](const Result* r) { return run.find(r->condition, m); });
  };
  std::vector<int> measures;
  for (int m = 0; m < static_cast<int>(run.measures.size()) && measures.size() < kMostMeasures; ++m)
    if (is_whole(run.measures[static_cast<std::size_t>(m)]) && measured(m)) measures.push_back(m);
  for (const int m : measures) {
    const std::string title = title_of(run.measures[static_cast<std::size_t>(m)], run.measures);
    table.columns.push_back({cat(title, " (", unit_of(run, m), ")"), title, true});
  }
  for (const Result* family_result : family.rows) {
    std::vector<Table::Cell> row = {words(run.condition(*family_result).name())};
    for (const int m : measures) {
      const Result* r = run.find(family_result->condition, m);
      const Effect e = r ? effect_of(*r, run.measure(*r)) : Effect{};
      const bool sized = r && has_size(*r);
      row.push_back({!r             ? ""
                     : sized        ? cat(short_amount(e), " [", short_interval(e), "]")
                     : r->collapsed ? "collapsed"
                                    : "failed",
                     raw_number(e.value)});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table draw_table(const Run& run) {
  Table table{{{"Target", "target"},
               {"Matched by", "match_kind"},
               {"Draw", "draw", true},
               {"Effect", "effect", true},
               {"Collapsed", "collapsed"},
               {"With block 0", "with_block_0"}},
              {}};
  for (const ControlSet& set : control_sets(run))
    for (std::size_t d = 0; d < set.draws.size(); ++d) {
      const ControlSet::Draw& draw = set.draws[d];
      table.rows.push_back({words(run.condition(*set.target).name()),
                            words(set.match_kind),
                            count(static_cast<long long>(d)),
                            {short_amount({draw.harm, kNone, kNone}), raw_number(draw.harm)},
                            words(draw.collapsed ? "true" : "false"),
                            words(draw.with_block_0 ? "true" : "false")});
    }
  return table;
}

}  // namespace plait::ablate::report
