#include "tools/ablate/report/effect.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/plot/text.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

constexpr double kAlpha = 0.05;  // of adjusted p values

}  // namespace

MetricText metric_text(const std::string& metric) {
  if (metric == "nll") return {"loss", "nats per token", 1};
  if (metric == "bits_per_byte") return {"bits per byte", "bits per byte", 1};
  if (metric == "kl_mean") return {"mean KL", "nats", 1};
  if (metric == "kl_p50" || metric == "kl_median") return {"median KL", "nats", 1};
  if (metric == "kl_p99") return {"KL, 99th percentile", "nats", 1};
  if (metric == "top1_agree") return {"top-1 agreement", "points", 100};
  if (metric == "top1") return {"top-1 accuracy", "points", 100};
  if (metric == "acc") return {"accuracy", "points", 100};
  if (metric == "acc_norm") return {"normalised accuracy", "points", 100};
  if (metric == "exact_match") return {"exact match", "points", 100};
  if (metric == "shapley") return {"Shapley share of the loss", "nats per token", 1};
  if (metric == "effrem") return {"effective remembrance", "nats", 1};
  return {spaced(metric), "", 1};
}

Effect effect_of(const Result& r, const Measure& measure) {
  const double factor = metric_text(measure.metric).factor;
  if (r.higher_is_better) return {-factor * r.delta, -factor * r.ci_high, -factor * r.ci_low};
  return {factor * r.delta, factor * r.ci_low, factor * r.ci_high};
}

Certainty certainty_of(const Result& r) {
  if (r.collapsed) return Certainty::collapsed;
  const double p = std::isfinite(r.p_adj) ? r.p_adj : r.p_raw;
  const bool clear = std::isfinite(p) ? p < kAlpha : r.ci_low > 0 || r.ci_high < 0;
  return clear ? Certainty::clear : Certainty::unclear;
}

bool has_size(const Result& r) { return std::isfinite(r.delta) && !r.collapsed && r.status != "failed"; }

std::string amount(const Effect& e, const std::string& unit) {
  return decimal(e.value, decimals_of(e)) + (unit.empty() ? "" : " " + unit);
}

std::string with_interval(const Effect& e, const std::string& unit) {
  if (!e.has_interval()) return amount(e, unit) + " (no interval)";
  const int decimals = decimals_of(e);
  return cat(amount(e, unit), " (", decimal(e.low, decimals), " to ", decimal(e.high, decimals), ")");
}

std::string title_of(const Measure& m, const std::vector<Measure>& among) {
  std::string title = cat(m.dataset, m.dataset.empty() ? "" : ", ", metric_text(m.metric).title);
  const auto add = [&](std::string Measure::*factor, const std::string& before, const std::string& after) {
    const bool varies = std::any_of(among.begin(), among.end(), [&](const Measure& other) {
      return other.dataset == m.dataset && other.metric == m.metric && other.*factor != m.*factor;
    });
    if (varies && !(m.*factor).empty()) title += ", " + before + m.*factor + after;
  };
  add(&Measure::split, "", "");
  add(&Measure::n_shot, "", " shots");
  add(&Measure::context_len, "context ", "");
  add(&Measure::position_bin, "positions ", "");
  add(&Measure::filter, "", "");
  return title;
}

std::string unit_of(const Run& run, int measure) {
  return metric_text(run.measures[static_cast<std::size_t>(measure)].metric).unit;
}

std::string blocks(const std::vector<int>& layers) {
  std::vector<std::string> runs;
  for (std::size_t i = 0, j; i < layers.size(); i = j) {
    for (j = i + 1; j < layers.size() && layers[j] == layers[j - 1] + 1;) ++j;
    runs.push_back(j - i == 1 ? cat(layers[i]) : cat(layers[i], "\u2013", layers[j - 1]));
  }
  if (runs.empty()) return "no block";
  return (layers.size() == 1 ? "block " : "blocks ") + listed(runs);
}

}  // namespace plait::ablate::report
