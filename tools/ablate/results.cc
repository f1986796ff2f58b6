#include "tools/ablate/results.h"

#include <cmath>
#include <map>

#include "runtime/base/error.h"
#include "tools/ablate/conditions.h"
#include "tools/ablate/statistics/multiplicity.h"

namespace plait::ablate {
namespace {

std::string number(double value) { return std::isnan(value) ? "" : shortest(value); }

}  // namespace

void adjust_rows(std::vector<ResultRow>& rows) {
  std::map<std::string, std::vector<std::size_t>> families;
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (!std::isnan(rows[i].p_raw)) families[rows[i].family_id].push_back(i);
  for (const auto& [id, members] : families) {
    std::vector<double> p;
    for (const std::size_t i : members) p.push_back(rows[i].p_raw);
    const std::string& how = rows[members[0]].adjust;
    const Adjustment adjustment = how == "holm" ? Adjustment::holm
                                  : how == "bh" ? Adjustment::benjamini_hochberg
                                                : Adjustment::none;
    const std::vector<double> adjusted = adjust(adjustment, p);
    for (std::size_t i = 0; i < members.size(); ++i) {
      rows[members[i]].p_adj = adjusted[i];
      rows[members[i]].n_comparisons = static_cast<Index>(members.size());
    }
  }
}

std::string results_csv(const std::string& run_id, const std::string& baseline_id,
                        const std::vector<ResultRow>& rows) {
  std::string csv =
      csv_line({"run_id",       "condition_id",     "baseline_id",     "dataset",        "split",
                "task_version", "n_shot",           "context_len",     "position_bin",   "metric",
                "filter",       "higher_is_better", "value",           "baseline_value", "delta",
                "n_items",      "n_clusters",       "n_paired",        "stderr",         "ci_low",
                "ci_high",      "ci_level",         "ci_method",       "p_raw",          "p_adj",
                "adjust",       "family_id",        "n_comparisons",   "control_rank",   "control_n",
                "control_gap",  "control_ci_low",   "control_ci_high", "collapsed",      "mde80",
                "status",       "seconds",          "forwards_equiv"});
  for (const ResultRow& r : rows)
    csv += csv_line({run_id,
                     r.condition_id,
                     baseline_id,
                     r.dataset,
                     r.split,
                     r.task_version,
                     r.n_shot,
                     r.context_len,
                     r.position_bin,
                     r.metric,
                     r.filter,
                     r.higher_is_better ? "true" : "false",
                     number(r.value),
                     number(r.baseline_value),
                     number(r.delta),
                     cat(r.n_items),
                     cat(r.n_clusters),
                     cat(r.n_paired),
                     number(r.stderr_),
                     number(r.ci_low),
                     number(r.ci_high),
                     number(r.ci_level),
                     r.ci_method,
                     number(r.p_raw),
                     number(r.p_adj),
                     r.adjust,
                     r.family_id,
                     r.n_comparisons > 0 ? cat(r.n_comparisons) : "",
                     r.control_rank < 0 ? "" : cat(r.control_rank),
                     r.control_n > 0 ? cat(r.control_n) : "",
                     number(r.control_gap),
                     number(r.control_ci_low),
                     number(r.control_ci_high),
                     r.collapsed ? "true" : "false",
                     number(r.mde80),
                     r.status,
                     number(r.seconds),
                     number(r.forwards_equiv)});
  return csv;
}

}  // namespace plait::ablate
