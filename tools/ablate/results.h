// results.csv: one row per condition, data set, factors and metric (ablation-and-streaming 8).
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "runtime/base/view.h"

namespace plait::ablate {

inline constexpr double kNotGiven = std::numeric_limits<double>::quiet_NaN();  // an empty cell

struct ResultRow {
  std::string condition_id;
  std::string dataset, split, task_version, n_shot, context_len, position_bin;
  std::string metric, filter = "none";
  bool higher_is_better = false;
  double value = kNotGiven, baseline_value = kNotGiven, delta = kNotGiven;
  Index n_items = 0, n_clusters = 0, n_paired = 0;
  double stderr_ = kNotGiven, ci_low = kNotGiven, ci_high = kNotGiven, ci_level = kNotGiven;
  std::string ci_method;
  double p_raw = kNotGiven, p_adj = kNotGiven;
  std::string adjust, family_id;
  Index n_comparisons = 0;
  Index control_rank = -1, control_n = 0;
  double control_gap = kNotGiven, control_ci_low = kNotGiven, control_ci_high = kNotGiven;
  bool collapsed = false;
  double mde80 = kNotGiven;
  std::string status = "ok";
  double seconds = kNotGiven, forwards_equiv = kNotGiven;
};

// Adjusts p_raw within each family by the family's own `adjust`, and counts its comparisons.
void adjust_rows(std::vector<ResultRow>& rows);

std::string results_csv(const std::string& run_id, const std::string& baseline_id,
                        const std::vector<ResultRow>& rows);

}  // namespace plait::ablate
