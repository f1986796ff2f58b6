#include "tools/ablate/analysis.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>
#include <set>

#include "runtime/base/error.h"
#include "tools/ablate/remembrance.h"
#include "tools/ablate/statistics/bootstrap.h"
#include "tools/ablate/statistics/clusters.h"
#include "tools/ablate/statistics/paired.h"
#include "tools/ablate/statistics/power.h"
#include "tools/ablate/statistics/rank.h"
#include "tools/ablate/statistics/shapley.h"
#include "tools/program.h"

namespace plait::ablate {
namespace {

constexpr double kLevel = 0.95;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }
std::size_t at(int i) { return static_cast<std::size_t>(i); }

// One text in one context: what a row of results.csv is about.
struct Slice {
  int text;
  Index context;
  std::vector<std::size_t> units;
  std::vector<int> cluster;                     // by scored token, in the order of units
  std::vector<double> bytes;                    // by scored token
  std::vector<std::string> position, distance;  // bins by scored token
  int clusters = 0;
};

std::string name_of_context(Index context) { return context > 0 ? cat(context) : "stream"; }

// How far back the pair of the target and the token before it occurred in the unit; -1: never.
std::vector<Index> pair_distances(std::span<const Token> tokens) {
  std::map<std::pair<Token, Token>, Index> last;
  std::vector<Index> distance(tokens.size(), -1);
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    const auto [found, is_new] = last.try_emplace({tokens[i - 1], tokens[i]}, static_cast<Index>(i));
    if (!is_new) distance[i] = static_cast<Index>(i) - std::exchange(found->second, static_cast<Index>(i));
  }
  return distance;
}

std::vector<Slice> slices_of(std::span<const Text> texts, std::span<const Unit> units) {
  std::vector<Slice> slices;
  for (std::size_t u = 0; u < units.size(); ++u) {
    const Unit& unit = units[u];
    if (slices.empty() || slices.back().text != unit.text || slices.back().context != unit.context)
      slices.push_back({unit.text, unit.context, {}, {}, {}, {}, {}, 0});
    Slice& slice = slices.back();
    slice.units.push_back(u);
    const auto& sequence = texts[at(unit.text)].sequences[at(unit.sequence)];
    const auto distance =
        pair_distances(std::span(sequence.tokens).subspan(at(unit.begin), at(unit.end - unit.begin)));
    for (const Index offset : unit.scored) {
      const Index target = unit.begin + offset + 1;
      slice.cluster.push_back(static_cast<int>(sequence.document[at(target)]));
      slice.bytes.push_back(static_cast<double>(sequence.bytes[at(target)]));
      slice.position.push_back(position_bin(offset + 1));
      slice.distance.push_back(distance_bin(distance[at(offset + 1)]));
    }
  }
  for (Slice& slice : slices) {  // documents without a scored token leave no gaps
    std::map<int, int> dense;
    for (int& c : slice.cluster) c = dense.try_emplace(c, static_cast<int>(dense.size())).first->second;
    slice.clusters = static_cast<int>(dense.size());
  }
  return slices;
}

class Analyst {
 public:
  explicit Analyst(const AnalysisInput& input) : in_(input), slices_(slices_of(input.texts, input.units)) {}

  std::vector<ResultRow> all() {
    const auto names = listed(in_.plan);
    for (const Slice& slice : slices_) {
      slice_ = &slice;
      slice_begin_ = rows_.size();
      for (int c = 0; c < static_cast<int>(in_.plan.conditions.size()); ++c) totals_.push_back(total(c));
      for (const auto& [condition, index] : names) rows_of(condition, index);
      controls();
      shapley();
      totals_.clear();
    }
    adjust_rows(rows_);
    return std::move(rows_);
  }

  std::vector<std::pair<double, std::string>> singles(const std::string& site) {
    std::vector<std::pair<double, std::string>> found;
    if (slices_.empty()) return found;
    slice_ = &slices_[0];
    const Total base = total(0);
    for (const auto& [condition, index] : listed(in_.plan))
      if (condition.design == "single" && condition.site + "." + condition.op == site)
        found.push_back({(total(index).nll - base.nll) / base.tokens, condition.id});
    return found;
  }

 private:
  // Sums over a slice.
  struct Total {
    double nll = 0, kl = 0, agree = 0, first = 0, tokens = 0, bytes = 0;
    std::vector<double> cluster_nll, cluster_tokens;
  };

  Total total(int condition) const {
    Total t;
    t.cluster_nll.assign(at(slice_->clusters), 0);
    t.cluster_tokens.assign(at(slice_->clusters), 0);
    std::size_t i = 0;
    for (const std::size_t unit : slice_->units)
      for (const TokenScores& s : in_.scores.of(condition, unit)) {
        t.nll += s.nll;
        t.kl += s.kl;
        t.agree += s.agree;
        t.first += s.rank == 0;
        t.bytes += slice_->bytes[i];
        t.cluster_nll[at(slice_->cluster[i])] += s.nll;
        t.cluster_tokens[at(slice_->cluster[i])] += 1;
        ++i;
      }
    t.tokens = static_cast<double>(i);
    return t;
  }

  std::vector<Cluster> clusters(const Total& condition) const {
    const Total& base = totals_[0];
    std::vector<Cluster> all;
    for (std::size_t c = 0; c < base.cluster_nll.size(); ++c)
      all.push_back({condition.cluster_nll[c] - base.cluster_nll[c], base.cluster_tokens[c],
                     static_cast<Index>(base.cluster_tokens[c])});
    return all;
  }

  // Where a cluster is a token, documents are not looked at: what a text without documents asks for.
  std::vector<Cluster> paired(int condition) const {
    if (in_.study.stats.cluster != "item") return clusters(totals_[at(condition)]);
    std::vector<double> differences;
    for (const std::size_t unit : slice_->units) {
      const auto own = in_.scores.of(condition, unit), base = in_.scores.of(0, unit);
      for (std::size_t i = 0; i < own.size(); ++i)
        differences.push_back(static_cast<double>(own[i].nll) - base[i].nll);
    }
    return one_per_item(differences);
  }

  ResultRow row(const Condition& condition, const char* metric, bool higher, double value,
                double baseline) const {
    ResultRow r;
    r.condition_id = condition.id;
    r.dataset = in_.texts[at(slice_->text)].name;
    r.task_version = "1";
    r.context_len = name_of_context(slice_->context);
    r.metric = metric;
    r.higher_is_better = higher;
    r.value = value;
    r.baseline_value = baseline;
    r.delta = value - baseline;
    r.n_items = r.n_paired = static_cast<Index>(totals_[0].tokens);
    r.n_clusters = slice_->clusters;
    return r;
  }

  bool is_draw(const Condition& c) const { return c.design == "random" || c.design == "shapley"; }

  void rows_of(const Condition& condition, int index) {
    const Total &own = totals_[at(index)], &base = totals_[0];
    const double nll = own.nll / own.tokens;
    const bool collapsed = nll >= std::log(static_cast<double>(in_.vocab)) - 0.1;
    ResultRow r = row(condition, "nll", false, nll, base.nll / base.tokens);
    r.collapsed = collapsed;
    r.status = collapsed ? "collapsed" : "ok";
    if (const auto cost = in_.costs.find(index); cost != in_.costs.end()) {
      r.seconds = cost->second.seconds;
      r.forwards_equiv = cost->second.forwards_equiv;
    }
    if (condition.design != "baseline") test(condition, index, r);
    rows_.push_back(r);
    more_metrics(condition, index, r);
    if (condition.site == "history") remembrance(condition, index);
    const bool factors =
        condition.design == "baseline" || condition.design == "group" || condition.design == "spec";
    if (!factors) return;
    bins(condition, index, slice_->position);
    bins(condition, index, slice_->distance);
  }

  // Interval, p-value and power of an effect. Sets that only controls and Shapley orders use get a standard
  // error.
  void test(const Condition& condition, int index, ResultRow& r) const {
    const std::vector<Cluster> pairs = paired(index);
    r.n_clusters = static_cast<Index>(pairs.size());
    r.delta = mean(pairs);
    const std::string refused = refusal(pairs);
    if (!refused.empty()) {
      r.ci_method = "refused: " + refused;
      return;
    }
    if (is_draw(condition)) {
      r.stderr_ = standard_error(pairs);
      return;
    }
    if (in_.stopped.count({slice_->text, slice_->context})) {
      const Interval interval = in_.stop->interval(slice_->text, slice_->context, index);
      r.ci_low = interval.low, r.ci_high = interval.high, r.ci_level = kLevel;
      r.ci_method = "confidence_sequence";
      r.status = "stopped_early";
      return;
    }
    PairedSettings settings;
    settings.level = kLevel;
    settings.resamples = in_.study.stats.boot;
    settings.seed = in_.study.seed;
    settings.threads = in_.threads;
    const PairedMean result = paired_mean(pairs, settings);
    r.stderr_ = result.standard_error;
    r.ci_low = result.interval.low;
    r.ci_high = result.interval.high;
    r.ci_level = result.level;
    r.ci_method = result.method;
    r.p_raw = result.p;
    const auto n = static_cast<Index>(pairs.size());
    r.mde80 = smallest_effect(n, result.standard_error * std::sqrt(static_cast<double>(n)));
    const auto& declared = in_.study.plan.confirmatory;
    const bool confirmatory = std::find(declared.begin(), declared.end(), condition.id) != declared.end();
    const std::string rest = cat(":", r.dataset, ":", r.context_len);
    r.family_id =
        (confirmatory ? "confirmatory" : cat(condition.design, ":", condition.site, ".", condition.op)) +
        rest;
    r.adjust = confirmatory ? in_.study.stats.confirmatory : in_.study.stats.sweep;
  }

  void more_metrics(const Condition& condition, int index, const ResultRow& primary) {
    const Total &own = totals_[at(index)], &base = totals_[0];
    const auto add = [&](const char* metric, bool higher, double value, double baseline) {
      ResultRow r = row(condition, metric, higher, value, baseline);
      r.collapsed = primary.collapsed;
      r.status = primary.status;
      rows_.push_back(std::move(r));
    };
    const double bits = std::numbers::ln2;
    add("bits_per_byte", false, own.nll / bits / own.bytes, base.nll / bits / base.bytes);
    add("kl_mean", false, own.kl / own.tokens, 0);
    std::vector<float> kl;
    for (const std::size_t unit : slice_->units)
      for (const TokenScores& s : in_.scores.of(index, unit)) kl.push_back(s.kl);
    const auto quantile_of = [&](double p) {
      const auto k = static_cast<std::ptrdiff_t>(p * static_cast<double>(kl.size() - 1));
      std::nth_element(kl.begin(), kl.begin() + k, kl.end());
      return static_cast<double>(kl[at(k)]);
    };
    add("kl_p50", false, quantile_of(0.5), 0);
    add("kl_p99", false, quantile_of(0.99), 0);
    add("top1_agree", true, own.agree / own.tokens, 1);
    add("top1", true, own.first / own.tokens, base.first / base.tokens);
  }

  // How far the distribution is from the baseline's, by the history that is left.
  void remembrance(const Condition& condition, int index) {
    const Index at_token = condition.edits[0].begin;
    std::map<std::string, std::map<int, Cluster>> by_history;
    std::size_t i = 0;
    for (const std::size_t unit : slice_->units) {
      const auto scores = in_.scores.of(index, unit);
      for (std::size_t t = 0; t < scores.size(); ++t, ++i) {
        const Index history = in_.units[unit].scored[t] - at_token + 1;
        if (history >= 1) add_token(by_history[history_bin(history)][slice_->cluster[i]], scores[t].kl);
      }
    }
    for (const auto& [bin, members] : by_history) {
      double sum = 0, tokens = 0;
      for (const auto& [id, cluster] : members) sum += cluster.sum, tokens += cluster.weight;
      add_bin(condition, bin, members, row(condition, "effrem", false, sum / tokens, 0));
    }
  }

  static void add_token(Cluster& cluster, double value) {
    cluster.sum += value;
    cluster.weight += 1;
    cluster.items += 1;
  }

  // The row of one bin of a factor: with a cluster-robust error and Student's interval.
  void add_bin(const Condition& condition, const std::string& bin, const std::map<int, Cluster>& members,
               ResultRow r) {
    std::vector<Cluster> pairs;
    Index items = 0;
    for (const auto& [id, cluster] : members) pairs.push_back(cluster), items += cluster.items;
    r.position_bin = bin;
    r.n_items = r.n_paired = items;
    r.n_clusters = static_cast<Index>(pairs.size());
    if (condition.design != "baseline" && refusal(pairs).empty()) {
      const StudentTest t = student_test(pairs, kLevel);
      r.stderr_ = standard_error(pairs);
      r.ci_low = t.interval.low, r.ci_high = t.interval.high, r.ci_level = kLevel, r.ci_method = "cluster_t";
    }
    rows_.push_back(std::move(r));
  }

  // The effect by bin of a factor.
  void bins(const Condition& condition, int index, const std::vector<std::string>& bin_of) {
    std::map<std::string, std::map<int, Cluster>> by_bin;
    std::map<std::string, std::pair<double, double>> sums;
    std::size_t i = 0;
    for (const std::size_t unit : slice_->units) {
      const auto own = in_.scores.of(index, unit), base = in_.scores.of(0, unit);
      for (std::size_t t = 0; t < own.size(); ++t, ++i) {
        add_token(by_bin[bin_of[i]][slice_->cluster[i]], static_cast<double>(own[t].nll) - base[t].nll);
        auto& [mine, theirs] = sums[bin_of[i]];
        mine += own[t].nll;
        theirs += base[t].nll;
      }
    }
    if (by_bin.size() < 2) return;
    for (const auto& [bin, members] : by_bin) {
      double n = 0;
      for (const auto& [id, cluster] : members) n += cluster.weight;
      add_bin(condition, bin, members,
              row(condition, "nll", false, sums[bin].first / n, sums[bin].second / n));
    }
  }

  // The target among its matched draws: one row per way of matching; the first way also goes into the plain
  // row.
  void controls() {
    std::map<std::pair<std::string, std::string>, std::vector<int>> draws;
    std::vector<std::pair<std::string, std::string>> order;
    for (const Use& use : in_.plan.uses) {
      if (use.match_of.empty()) continue;
      auto& list = draws[{use.match_of, use.match_kind}];
      if (list.empty()) order.push_back({use.match_of, use.match_kind});
      list.push_back(use.condition);
    }
    std::set<std::string> ranked;
    for (const auto& key : order) rank(key.first, key.second, draws[key], ranked.insert(key.first).second);
  }

  void rank(const std::string& target_id, const std::string& match, const std::vector<int>& draws,
            bool first) {
    const int target = in_.plan.find(target_id);
    const Total& base = totals_[0];
    std::vector<double> effects, sums;
    for (const int draw : draws) {
      effects.push_back((totals_[at(draw)].nll - base.nll) / base.tokens);
      for (const Cluster& c : clusters(totals_[at(draw)])) sums.push_back(c.sum);
    }
    BootstrapSettings settings;
    settings.resamples = std::min<Index>(in_.study.stats.boot, 2000);  // each replicate draws sets as well
    settings.seed = in_.study.seed;
    settings.threads = in_.threads;
    const ControlGap gap = control_gap(
        clusters(totals_[at(target)]),
        View<const double>(sums.data(), static_cast<Index>(draws.size()), slice_->clusters), settings);
    for (std::size_t i = slice_begin_, end = rows_.size(); i < end; ++i) {
      ResultRow r = rows_[i];
      const bool plain = r.metric == "nll" && r.filter == "none" && r.position_bin.empty();
      if (!plain || in_.plan.find(r.condition_id) != target) continue;
      const ControlRank place = control_rank(r.delta, effects, kLevel);
      r.control_rank = place.rank;
      r.control_n = place.draws;
      r.control_gap = gap.value;
      r.control_ci_low = gap.interval.low;
      r.control_ci_high = gap.interval.high;
      if (first) rows_[i] = r;
      if (r.condition_id != target_id) continue;  // the target's other names
      r.filter = "controls:" + match;
      r.p_raw = place.p_two_sided;
      r.adjust = in_.study.stats.sweep;
      r.family_id = cat("controls:", match, ":", r.dataset, ":", r.context_len);
      rows_.push_back(std::move(r));
    }
  }

  void shapley() {
    for (const Shapley& design : in_.plan.shapley) {
      const auto places = static_cast<Index>(design.places.size());
      ShapleyEstimate estimate(places);
      const auto effect = [&](int condition) {
        return (totals_[at(condition)].nll - totals_[0].nll) / totals_[0].tokens;
      };
      for (std::size_t o = 0; o + 1 < design.orders.size(); o += 2) {
        std::vector<double> forward, backward;
        for (const int c : design.at[o]) forward.push_back(effect(c));
        for (const int c : design.at[o + 1]) backward.push_back(effect(c));
        const std::vector<Index> order(design.orders[o].begin(), design.orders[o].end());
        estimate.add(order, forward, backward);
      }
      if (estimate.pairs() < 2) continue;
      const auto errors = estimate.standard_errors();
      const auto intervals = estimate.intervals(kLevel);
      for (std::size_t p = 0; p < design.places.size(); ++p) {
        const Condition* single = single_of(design.places[p], design.site);
        if (!single) continue;
        ResultRow r = row(*single, "shapley", false, estimate.values()[p], 0);
        r.stderr_ = errors[p];
        r.ci_low = intervals[p].low, r.ci_high = intervals[p].high, r.ci_level = kLevel;
        r.ci_method = "permutation_t";
        r.n_items = r.n_paired = estimate.pairs() * 2;
        rows_.push_back(std::move(r));
      }
    }
  }

  const Condition* single_of(const std::string& place, const std::string& site) const {
    for (const Condition& c : in_.plan.conditions)
      if (c.layers.size() <= 1 && !c.edits.empty() && c.site + "." + c.op == site &&
          std::all_of(c.edits.begin(), c.edits.end(), [&](const Edit& e) { return e.node == place; }))
        return &c;
    return nullptr;
  }

  const AnalysisInput& in_;
  std::vector<Slice> slices_;
  const Slice* slice_ = nullptr;
  std::vector<Total> totals_;  // by condition
  std::vector<ResultRow> rows_;
  std::size_t slice_begin_ = 0;  // rows of the slice begin here
};

}  // namespace

void ScoreBook::add(std::vector<UnitScores> units, std::vector<int> conditions) {
  if (!phases_.empty() && phases_[0].size() != units.size())
    fail("a study's phases scored ", phases_[0].size(), " and ", units.size(), " units");
  for (const UnitScores& unit : units)
    if (unit.conditions != static_cast<Index>(conditions.size()))
      fail("a journal holds ", unit.conditions, " conditions, its plan ", conditions.size());
  for (std::size_t row = 0; row < conditions.size(); ++row)
    place_.try_emplace(conditions[row], phases_.size(), static_cast<Index>(row));
  phases_.push_back(std::move(units));
}

std::span<const TokenScores> ScoreBook::of(int condition, std::size_t unit) const {
  const auto& [phase, row] = place_.at(condition);
  return phases_[phase][unit].of(row);
}

std::vector<std::pair<Condition, int>> listed(const Plan& plan) {
  std::vector<std::pair<Condition, int>> all = {{plan.conditions[0], 0}};
  std::set<int> seen = {0};
  const auto is_draw = [](const Use& use) { return use.design == "random" || use.design == "shapley"; };
  for (const Use& use : plan.uses) {
    const bool first = seen.insert(use.condition).second;
    if (use.condition == 0 || (is_draw(use) && !first)) continue;
    Condition condition = plan.conditions[at(use.condition)];
    condition.id = use.id, condition.label = use.label, condition.design = use.design;
    condition.match_of = use.match_of, condition.match_kind = use.match_kind, condition.draw = use.draw;
    all.push_back({std::move(condition), use.condition});
  }
  return all;
}

std::vector<ResultRow> analyse(const AnalysisInput& input) { return Analyst(input).all(); }

std::vector<std::string> strongest_singles(const AnalysisInput& input, const std::string& site) {
  auto found = Analyst(input).singles(site);
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::string> ids;
  for (const auto& [effect, id] : found) ids.push_back(id);
  return ids;
}

std::string power_table(std::span<const Text> texts, Index comparisons) {
  std::vector<std::vector<std::string>> rows = {
      {"text", "documents", "smallest effect at 80 %, in paired SDs between documents"}};
  for (const Text& text : texts)
    rows.push_back({text.name, cat(text.document_count),
                    text.document_count < 2 ? "no interval: one document"
                                            : fixed(smallest_effect(text.document_count, 1), 3)});
  return table(rows, "lrl") + cat(comparisons, " comparisons are planned.\n");
}

std::string position_bin(Index position) {
  constexpr std::array<Index, 8> edges = {32, 128, 512, 2048, 8192, 32768, 131072, 524288};
  Index low = 0;
  for (const Index edge : edges) {
    if (position < edge) return cat("position ", low, "-", edge - 1);
    low = edge;
  }
  return cat("position ", low, "-");
}

std::string distance_bin(Index distance) {
  if (distance < 0) return "pair last seen: never";
  constexpr std::array<Index, 5> edges = {32, 128, 512, 2048, 8192};
  Index low = 1;
  for (const Index edge : edges) {
    if (distance < edge) return cat("pair last seen: ", low, "-", edge - 1);
    low = edge;
  }
  return cat("pair last seen: ", low, "-");
}

}  // namespace plait::ablate
