#include "tools/ablate/report/findings.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/base/error.h"
#include "tools/ablate/report/controls.h"
#include "tools/ablate/report/curves.h"
#include "tools/ablate/report/effect.h"
#include "tools/plot/text.h"
#include "tools/program.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

using Rows = std::vector<const Result*>;

double median(std::vector<double> values) {
  if (values.empty()) return kNone;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Writes sentences about one run.
class Teller {
 public:
  explicit Teller(const Run& run) : run_(run) {}

  Effect effect(const Result& r) const { return effect_of(r, run_.measure(r)); }
  std::string unit(const Result& r) const { return metric_text(run_.measure(r).metric).unit; }
  std::string name(const Result& r) const { return run_.condition(r).name(); }
  std::string size(const Result& r) const { return with_interval(effect(r), unit(r)); }
  // The size as a person would say it of a removal: "costs 0.2 nats per token (..)", "gains ..".
  std::string costs(const Result& r) const {
    Effect e = effect(r);
    if (e.value >= 0) return "costs " + with_interval(e, unit(r));
    return "gains " + with_interval({-e.value, -e.high, -e.low}, unit(r));
  }

  // "the loss rises by 0.2 nats per token (..)": says nothing about the grammar of a label before it.
  std::string changes(const Result& r) const {
    const Effect e = effect(r);
    const Effect size = e.value >= 0 ? e : Effect{-e.value, -e.high, -e.low};
    const bool rises = (e.value >= 0) != r.higher_is_better;
    return cat("the ", metric_text(run_.measure(r).metric).title, rises ? " rises by " : " falls by ",
               with_interval(size, unit(r)));
  }

  // Most harmful first; collapsed ones before all that have a size.
  Rows sorted(Rows rows) const {
    std::stable_sort(rows.begin(), rows.end(), [&](const Result* a, const Result* b) {
      if (a->collapsed != b->collapsed) return a->collapsed;
      return effect(*a).value > effect(*b).value;
    });
    return rows;
  }

  Rows sized(const Rows& rows) const {
    Rows found;
    std::copy_if(rows.begin(), rows.end(), std::back_inserter(found),
                 [](const Result* r) { return has_size(*r); });
    return sorted(found);
  }

  std::string block(const Result& r) const {
    const ConditionRow& c = run_.condition(r);
    const std::string place = blocks(c.layers);
    if (c.layers.size() != 1) return place;
    const auto layer = static_cast<std::size_t>(c.layers[0]);
    return layer < run_.layer_types.size() ? cat(place, " (", spaced(run_.layer_types[layer]), ")") : place;
  }

  // "In 2 conditions the model collapses (a, b)."; empty where none does.
  std::string collapses(const Rows& rows) const {
    std::vector<std::string> names;
    for (const Result* r : rows)
      if (r->collapsed) names.push_back(name(*r));
    if (names.empty()) return {};
    const std::string which =
        names.size() <= 3 ? listed(names) : cat(names[0], ", ", names[1], " and ", names.size() - 2, " more");
    return cat("In ", counted(static_cast<long long>(names.size()), "condition"),
               " the model collapses to a uniform guess or worse, so no size is given: ", which, ". ");
  }

  // "12 of 24 make the model clearly worse, 1 clearly better."
  std::string verdicts(const Rows& rows) const {
    long long worse = 0, better = 0;
    for (const Result* r : rows) {
      if (certainty_of(*r) == Certainty::collapsed) ++worse;
      if (certainty_of(*r) == Certainty::clear) ++(effect(*r).value > 0 ? worse : better);
    }
    return cat(grouped(worse), " of ", grouped(static_cast<long long>(rows.size())),
               " make the model clearly worse",
               better > 0 ? cat(", ", grouped(better), " clearly better") : "", ". ");
  }

  std::string fine_print(const Rows& rows) const {
    if (rows.empty()) return {};
    const Result& r = *rows.front();
    std::string text = cat(run_.measure(r).dataset, run_.measure(r).dataset.empty() ? "" : ", ",
                           metric_text(run_.measure(r).metric).title, ". ");
    const bool adjusted = !r.adjust.empty() && r.adjust != "none";
    text += comparisons(rows);
    text += adjusted ? cat(", adjusted by ", adjustment(r.adjust), ". ") : std::string(", not adjusted. ");
    text += intervals(r);
    double smallest = 0;
    for (const Result* row : rows)
      if (std::isfinite(row->mde80)) smallest = std::max(smallest, row->mde80);
    if (smallest > 0)
      text += cat(" Effects under ",
                  amount({smallest * metric_text(run_.measure(r).metric).factor, kNone, kNone}, unit(r)),
                  " are missed more often than one time in five.");
    return text;
  }

  // "Intervals: 95 %, cluster bootstrap over 120 documents."
  static std::string intervals(const Result& r) {
    if (r.ci_method.starts_with("refused: ")) return "No intervals: " + r.ci_method.substr(9) + ".";
    if (!std::isfinite(r.ci_low)) return "No intervals.";
    const std::string method = r.ci_method.empty() ? "" : ", " + spaced(r.ci_method);
    const std::string unit = r.ci_method.starts_with("permutation")
                                 ? " over " + counted(r.n_items, "order") + " of removal"
                             : r.n_clusters > 0 ? " over " + counted(r.n_clusters, "document")
                                                : " over " + counted(r.n_items, "item");
    return cat(
        "Intervals: ", std::isfinite(r.ci_level) ? decimal(100 * r.ci_level, 0) + " %" : "level not given",
        method, unit, ".");
  }

 private:
  // "72 comparisons", "24 comparisons in 3 families of their own".
  static std::string comparisons(const Rows& rows) {
    std::map<std::string, long long> families;
    for (const Result* r : rows) families[r->family_id] = r->n_comparisons;
    long long sum = 0;
    for (const auto& [id, n] : families) sum += n;
    const std::string all = counted(sum > 0 ? sum : static_cast<long long>(rows.size()), "comparison");
    return sum > 0 && families.size() > 1 ? cat(all, " in ", families.size(), " families of their own") : all;
  }

  static std::string adjustment(const std::string& adjust) {
    if (adjust == "bh") return "Benjamini\u2013Hochberg";
    return adjust == "holm" ? "Holm" : adjust;
  }

  const Run& run_;
};

struct Wording {
  const char* intervention;
  const char* kicker;
  const char* doing;
};
constexpr Wording kWordings[] = {{"mixer.zero", "One mixer at a time", "Silencing one mixer"},
                                 {"mlp.zero", "One MLP at a time", "Silencing one MLP"},
                                 {"branch.zero", "One branch at a time", "Silencing one branch"},
                                 {"layer.skip", "One block at a time", "Skipping one whole block"}};

std::string dashed(const std::string& name) {
  std::string id;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (plain || (c >= 'A' && c <= 'Z'))
      id += plain ? c : static_cast<char>(c - 'A' + 'a');
    else if (!id.empty() && id.back() != '-')
      id += '-';
  }
  while (!id.empty() && id.back() == '-') id.pop_back();
  return id;
}

// "By kind, the median is 0.2 for softmax attention (3 blocks), ..": which kinds matter, block for block.
std::string medians_by_kind(const Run& run, const Teller& tell, const Rows& rows) {
  std::map<std::string, std::vector<double>> kinds;
  for (const Result* r : rows) {
    const auto& layers = run.condition(*r).layers;
    if (layers.size() == 1 && static_cast<std::size_t>(layers[0]) < run.layer_types.size())
      kinds[run.layer_types[static_cast<std::size_t>(layers[0])]].push_back(tell.effect(*r).value);
  }
  if (kinds.size() < 2) return {};
  std::vector<std::pair<double, std::string>> parts;
  double largest = 0;
  for (const auto& [kind, values] : kinds) largest = std::max(largest, std::abs(median(values)));
  for (const auto& [kind, values] : kinds)
    parts.push_back(
        {median(values), cat(decimal(median(values), decimals_for(largest / 10)), " for ", spaced(kind), " (",
                             counted(static_cast<long long>(values.size()), "block"), ")")});
  std::sort(parts.rbegin(), parts.rend());
  std::vector<std::string> words;
  for (auto& [value, text] : parts) words.push_back(text);
  return cat("Block for block the median is ", listed(words), ". ");
}

Family single_family(const Run& run, const Teller& tell, const Curve& curve) {
  Family f{.id = "single-" + dashed(curve.name), .design = "single"};
  const auto wording = std::find_if(std::begin(kWordings), std::end(kWordings),
                                    [&](const Wording& w) { return curve.name == w.intervention; });
  const bool known = wording != std::end(kWordings);
  f.kicker = known ? wording->kicker : curve.name + ", one block at a time";
  const std::string doing = known ? wording->doing : curve.name + " on one block";
  for (const Curve::Point& p : curve.points) f.rows.push_back(p.result);
  f.rows = tell.sorted(f.rows);
  const Rows sized = tell.sized(f.rows);
  if (sized.empty()) {
    f.headline = doing + " makes the model collapse, whichever it is.";
  } else if (f.rows.front()->collapsed) {
    f.headline = cat(doing, " makes the model collapse in ", tell.block(*f.rows.front()), "; of the others ",
                     tell.block(*sized[0]), " matters most and ", tell.costs(*sized[0]), ".");
  } else if (certainty_of(*sized[0]) == Certainty::clear) {
    f.headline = cat(doing, " hurts most in ", tell.block(*sized[0]), ": it ", tell.costs(*sized[0]), ".");
  } else {
    f.headline = cat(doing, " has no effect that stands out from chance; the largest, in ",
                     tell.block(*sized[0]), ", is ", tell.size(*sized[0]), ".");
  }
  f.detail = tell.collapses(f.rows) + tell.verdicts(f.rows);
  if (sized.size() > 1) {
    const Effect first = tell.effect(*sized[0]), second = tell.effect(*sized[1]);
    if (first.has_interval() && second.has_interval() && second.high > first.low)
      f.detail += cat("The interval of ", tell.block(*sized[1]),
                      " overlaps the first one's, so their order is not settled. ");
    f.detail += medians_by_kind(run, tell, sized);
  }
  return f;
}

std::string per_block(const Run& run, const Teller& tell, const Rows& sized) {
  std::vector<std::pair<double, std::string>> parts;
  for (const Result* r : sized) {
    const auto n = static_cast<double>(run.condition(*r).n_layers_removed);
    if (n < 1) continue;
    parts.push_back({tell.effect(*r).value / n, tell.name(*r)});
  }
  if (parts.size() < 2) return {};
  std::stable_sort(parts.begin(), parts.end(), [](auto& a, auto& b) { return a.first > b.first; });
  std::vector<std::string> words;
  for (std::size_t i = 0; i < std::min<std::size_t>(parts.size(), 6); ++i)
    words.push_back(cat(parts[i].second, " ", decimal(parts[i].first, decimals_for(parts[0].first / 10))));
  return cat("Per block removed, which is fairer to kinds with many blocks: ", listed(words), ". ");
}

Family group_family(const Run& run, const Teller& tell) {
  Family f{.id = "group", .design = "group", .kicker = "A whole kind at a time"};
  f.rows = tell.sorted(results_of(run, "group"));
  const Rows sized = tell.sized(f.rows);
  if (f.rows.empty()) return f;
  const auto collapsed = f.rows.size() - sized.size();
  if (collapsed > 0)
    f.headline =
        cat("The model collapses under ", tell.name(*f.rows[0]),
            collapsed > 1 ? cat(" and ", counted(static_cast<long long>(collapsed) - 1, "other group")) : "",
            sized.empty() ? "."
                          : cat("; the costliest of the rest: ", tell.name(*sized[0]), ", under which ",
                                tell.changes(*sized[0]), "."));
  else
    f.headline = cat("The costliest kind to lose: ", tell.name(*sized[0]), ", under which ",
                     tell.changes(*sized[0]), ".");
  if (sized.size() > 1)
    f.detail = cat("Cheapest to lose: ", tell.name(*sized.back()), ", at ", tell.size(*sized.back()), ". ");
  f.detail += per_block(run, tell, sized) + tell.verdicts(f.rows);
  return f;
}

Family ranked_family(const Teller& tell, const std::string& design, const std::string& kicker,
                     const std::string& what, const Rows& rows) {
  Family f{.id = dashed(design), .design = design, .kicker = kicker};
  f.rows = tell.sorted(rows);
  const Rows sized = tell.sized(f.rows);
  if (f.rows.empty()) return f;
  if (sized.empty())
    f.headline = cat("Every ", what, " makes the model collapse.");
  else if (sized.size() < f.rows.size())
    f.headline =
        cat("The model collapses under ", counted(static_cast<long long>(f.rows.size() - sized.size()), what),
            "; the costliest of the others: ", tell.name(*sized[0]), ", at ", tell.size(*sized[0]), ".");
  else
    f.headline = cat("The costliest ", what, ": ", tell.name(*sized[0]), ", at ", tell.size(*sized[0]), ".");
  f.detail = sized.size() > 1
                 ? cat("The cheapest: ", tell.name(*sized.back()), ", at ", tell.size(*sized.back()), ". ")
                 : "";
  f.detail += tell.verdicts(f.rows);
  return f;
}

// How many blocks of a series can go, counted from the first, before the loss passes kFelt.
struct Tolerance {
  double count = 0;
  std::string amount;  // "3 (2 for sure)": the interval's own count beside it
  std::string series;
};

Tolerance tolerance_of(const Teller& tell, const Curve& curve) {
  double count = 0, sure = 0;
  bool open = true, open_high = true;
  for (const Curve::Point& p : curve.points) {
    const Effect e = tell.effect(*p.result);
    open = open && has_size(*p.result) && e.value <= kFelt;
    open_high = open_high && open && e.has_interval() && e.high <= kFelt;
    if (open) count = p.x;
    if (open_high) sure = p.x;
  }
  return {count, cat(count > 0 ? cat(count) : "none", sure < count ? cat(" (", sure, " for sure)") : ""),
          curve.name};
}

// "3 with A and B; 1 with C; none with the other 7": series of one amount together, most first.
std::string by_amount(std::span<const Tolerance> sorted) {
  constexpr std::size_t kNamed = 2;  // of those that allow nothing
  std::string text;
  for (std::size_t i = 0, end; i < sorted.size(); i = end) {
    std::vector<std::string> names;
    for (end = i; end < sorted.size() && sorted[end].amount == sorted[i].amount; ++end)
      names.push_back(sorted[end].series);
    const bool many = sorted[i].count == 0 && names.size() > kNamed;
    text += cat(text.empty() ? "" : "; ", sorted[i].amount, " with ",
                many ? cat("the other ", names.size()) : listed(names));
  }
  return text;
}

Family cumulative_family(const Run& run, const Teller& tell) {
  Family f{.id = "cumulative", .design = "cumulative", .kicker = "More and more"};
  f.rows = tell.sorted(results_of(run, "cumulative"));
  std::vector<Tolerance> all;
  for (const Curve& curve : cumulative_curves(run)) all.push_back(tolerance_of(tell, curve));
  if (all.empty()) return f;
  std::stable_sort(all.begin(), all.end(), [](const Tolerance& a, const Tolerance& b) {
    return a.count != b.count ? a.count > b.count : a.amount < b.amount;
  });
  constexpr std::size_t kFewSeries = 2;  // a headline holds no more
  const bool few = all.size() <= kFewSeries;
  const std::string begin =
      cat("Blocks that can go before the loss rises by ", decimal(kFelt, 1), " nats per token: ");
  f.headline = few                ? cat(begin, by_amount(all), ".")
               : all[0].count > 0 ? cat(begin, "at most ", all[0].amount, ", with ", all[0].series, ".")
                                  : cat(begin, "none, whichever is the first.");
  if (!few && all[0].count > 0)
    f.detail = cat("In other series: ", by_amount(std::span(all).subspan(1)), ". ");
  const auto collapsed =
      std::count_if(f.rows.begin(), f.rows.end(), [](const Result* r) { return r->collapsed; });
  f.detail += cat(collapsed > 0
                      ? cat("In ", grouped(collapsed), " of ", grouped(static_cast<long long>(f.rows.size())),
                            " steps the model has collapsed, so no size is given there. ")
                      : std::string(),
                  "\u201cFor sure\u201d counts the steps whose whole interval stays below that line. ");
  return f;
}

Family leave_in_family(const Run& run, const Teller& tell) {
  Family f = ranked_family(tell, "leave_in", "Only one left", "part left alone", results_of(run, "leave_in"));
  const Rows sized = tell.sized(f.rows);
  if (f.rows.empty() || sized.empty()) return f;
  f.headline = cat("Of the parts left alone, ", tell.name(*sized.back()),
                   " does best: ", tell.changes(*sized.back()), ".");
  f.detail = tell.collapses(f.rows);
  return f;
}

Family pair_family(const Run& run, const Teller& tell) {
  Family f{.id = "pair", .design = "pair", .kicker = "Two at once"};
  f.rows = tell.sorted(results_of(run, "pair"));
  const Rows sized = tell.sized(f.rows);
  if (f.rows.empty()) return f;
  const Result* most = nullptr;  // the pair farthest from the sum of its members
  double excess = 0;
  long long more = 0, compared = 0;
  for (const Result* r : sized) {
    const double sum = sum_of_parts(run, *r);
    if (!std::isfinite(sum)) continue;
    const double difference = tell.effect(*r).value - sum;
    ++compared;
    more += difference > 0;
    if (!most || std::abs(difference) > std::abs(excess)) most = r, excess = difference;
  }
  if (!most) return ranked_family(tell, "pair", f.kicker, "pair", f.rows);
  const Effect whole = tell.effect(*most);
  const double sum = whole.value - excess;
  const bool apart = whole.has_interval() && (sum < whole.low || sum > whole.high);
  f.headline = cat("With both gone at once (", tell.name(*most), ") ", tell.changes(*most),
                   "; the two alone add up to ", decimal(sum, decimals_for(whole.value / 10)),
                   !apart       ? ", within that interval."
                   : excess > 0 ? ": each covers for the other."
                                : ": they do part of the same work.");
  f.detail = cat(grouped(more), " of ", grouped(compared), " pairs cost more than the sum of their members. ",
                 "The sum is of two estimates and has no interval of its own. ", tell.collapses(f.rows));
  return f;
}

Family shapley_family(const Run& run, const Teller& tell) {
  Family f{.id = "shapley", .design = "shapley", .kicker = "A fair share"};
  for (const Result& r : run.results)
    if (run.measure(r).metric == "shapley" && has_size(r)) f.rows.push_back(&r);
  if (f.rows.empty()) return f;
  f.rows = tell.sorted(f.rows);
  double sum = 0;
  for (const Result* r : f.rows) sum += tell.effect(*r).value;
  f.headline = cat("Averaged over all orders of removal, ", tell.name(*f.rows[0]),
                   " carries most: ", tell.size(*f.rows[0]), ".");
  f.detail = cat("The shares of all ", counted(static_cast<long long>(f.rows.size()), "part"), " add up to ",
                 amount({sum, kNone, kNone}, tell.unit(*f.rows[0])), ", the cost of removing everything. ");
  if (f.rows.size() > 1 && tell.effect(*f.rows[0]).has_interval() &&
      tell.effect(*f.rows[1]).high > tell.effect(*f.rows[0]).low)
    f.detail += cat("The interval of ", tell.name(*f.rows[1]),
                    " overlaps the first one's, so their order is not settled. ");
  return f;
}

const Result* at(const Curve& curve, double x) {
  const auto found = std::find_if(curve.points.begin(), curve.points.end(),
                                  [&](auto& p) { return std::abs(p.x - x) < 1e-9; });
  return found == curve.points.end() ? nullptr : found->result;
}

Family dose_family(const Run& run, const Teller& tell) {
  Family f{.id = "dose", .design = "dose", .kicker = "By the dose"};
  f.rows = tell.sorted(results_of(run, "dose"));
  std::vector<std::string> parts;
  for (const Curve& curve : dose_curves(run)) {
    const Result *half = at(curve, 0.5), *full = at(curve, 1);
    if (!half || !full || !has_size(*half)) continue;
    parts.push_back(cat(curve.name, ": at half strength ", tell.changes(*half), ", ",
                        has_size(*full) ? "in full by " + amount(tell.effect(*full), "")
                                        : "and in full the model collapses"));
  }
  if (f.rows.empty()) return f;
  if (parts.empty()) return ranked_family(tell, "dose", f.kicker, "dose", f.rows);
  f.headline = capitalised(parts[0]) + ".";
  for (std::size_t i = 1; i < std::min<std::size_t>(parts.size(), 4); ++i)
    f.detail += capitalised(parts[i]) + ". ";
  f.detail += tell.collapses(f.rows);
  return f;
}

// How effects change along a factor; `at` says where a value of it is: "with 128 tokens of context".
Family factor_family(const Teller& tell, const std::string& design, const std::string& kicker,
                     const std::vector<Curve>& curves, std::string (*at)(const std::string& value)) {
  Family f{.id = design, .design = design, .kicker = kicker};
  std::vector<std::pair<double, std::string>> changes;  // those that depend most on the factor first
  for (const Curve& curve : curves) {
    for (const Curve::Point& p : curve.points) f.rows.push_back(p.result);
    const Curve::Point &first = curve.points.front(), &last = curve.points.back();
    if (!has_size(*first.result) || !has_size(*last.result)) continue;
    const Effect from = tell.effect(*first.result), to = tell.effect(*last.result);
    const bool same_sign = (from.value >= 0) == (to.value >= 0);
    const auto place = [&](double x) { return at(grouped(static_cast<long long>(x))); };
    changes.push_back(
        {std::abs(to.value - from.value),
         cat("under ", curve.name, " ", tell.changes(*first.result), " ", place(first.x), ", and ",
             same_sign ? "by " + with_interval(to, "") : tell.changes(*last.result), " ", place(last.x))});
  }
  std::stable_sort(changes.begin(), changes.end(), [](auto& a, auto& b) { return a.first > b.first; });
  if (f.rows.empty()) return f;
  f.headline = changes.empty()
                   ? "At one end or the other of this factor every condition makes the model collapse."
                   : capitalised(changes[0].second) + ".";
  for (std::size_t i = 1; i < std::min<std::size_t>(changes.size(), 4); ++i)
    f.detail += capitalised(changes[i].second) + ". ";
  return f;
}

// Where the whole rest of a curve lies within what one may give up; null if its end does not.
const Curve::Point* enough(const Teller& tell, const Curve& curve) {
  const Curve::Point* first = nullptr;
  for (const Curve::Point& p : curve.points) {
    if (tell.effect(*p.result).value > kFelt)
      first = nullptr;
    else if (!first)
      first = &p;
  }
  return first;
}

// What a curve of remembrance says.
struct Reach {
  std::string verdict;  // "In prose.txt, 64 tokens of history are enough to come within 0.1 nats of the .."
  std::string sizes;    // "with nothing remembered from before token 256 the next token's .."
};

Reach reach_of(const Run& run, const Teller& tell, const Curve& curve) {
  const auto tokens = [](const Curve::Point& p) { return counted(static_cast<long long>(p.x), "token"); };
  const auto size = [&](const Curve::Point& p) {
    const Effect e = tell.effect(*p.result);
    return e.has_interval() ? with_interval(e, tell.unit(*p.result)) : amount(e, tell.unit(*p.result));
  };
  const Curve::Point &first = curve.points.front(), &last = curve.points.back();
  const Curve::Point* within = enough(tell, curve);
  Reach reach;
  reach.verdict = cat("In ", run.measure(*first.result).dataset, ", ");
  if (within == &first)
    reach.verdict += cat("what came before the last ", static_cast<long long>(curve.points[1].x - 1),
                         " tokens moves the next one by less than ", decimal(kFelt, 1), " nats");
  else
    reach.verdict += cat(tokens(within ? *within : last), " of history are ", within ? "" : "not ",
                         "enough to come within ", decimal(kFelt, 1), " nats of the whole model");
  const Curve::Point& then = within && within != &first ? *within : last;
  reach.sizes = cat("with ", curve.name, " the next token\u2019s distribution lies ", size(first),
                    " from the whole model\u2019s at first, and ", size(then), " from ", tokens(then), " on");
  return reach;
}

// The headline is of the primary measure's text; of each text the last cut is told, with most before it.
Family remembrance_family(const Run& run, const Teller& tell) {
  Family f{.id = "remembrance", .design = "remembrance", .kicker = "How far back it remembers"};
  std::vector<std::pair<std::string, Reach>> told;  // by data set
  for (const Curve& curve : remembrance_curves(run)) {
    for (const Curve::Point& p : curve.points) f.rows.push_back(p.result);
    const std::string& dataset = run.measure(*f.rows.back()).dataset;
    if (told.empty() || told.back().first != dataset) told.push_back({dataset, {}});
    told.back().second = reach_of(run, tell, curve);
  }
  if (told.empty()) return f;
  const std::string& primary = run.measures[static_cast<std::size_t>(run.primary)].dataset;
  std::stable_partition(told.begin(), told.end(), [&](const auto& one) { return one.first == primary; });
  f.headline = told[0].second.verdict + ".";
  f.detail = capitalised(told[0].second.sizes) + ". ";
  for (std::size_t i = 1; i < std::min<std::size_t>(told.size(), 4); ++i)
    f.detail += cat(told[i].second.verdict, ": ", told[i].second.sizes, ". ");
  f.fine_print =
      cat("Mean KL divergence of the next token\u2019s distribution from the whole model\u2019s, by the ",
          "number of tokens since the cut. ", tell.intervals(*f.rows.front()));
  return f;
}

// "Chance does not explain the effect of X: of random sets, 2 of 199 of as many blocks (p = ..) and .. hurt
// as much." The first `most` kinds of matching are told, all of them judged.
std::string verdict_of(const Teller& tell, const Result& target, const std::vector<ControlSet>& sets,
                       std::size_t most) {
  std::vector<std::string> parts;
  double largest = 0, smallest = 1;
  for (const ControlSet& set : sets) {
    if (set.target != &target) continue;
    if (parts.size() < most)
      parts.push_back(cat(set.as_bad == 0 ? "none" : grouped(set.as_bad), " of ",
                          grouped(static_cast<long long>(set.draws.size())), " of ",
                          matched_by(set.match_kind), " (", probability(set.p()), ")"));
    largest = std::max(largest, set.p()), smallest = std::min(smallest, set.p());
  }
  const char* verdict = largest < 0.05    ? "Chance does not explain the effect of "
                        : smallest < 0.05 ? "Chance explains by some yardsticks, not by all, the effect of "
                                          : "Chance explains the effect of ";
  return cat(verdict, tell.name(target), ": of random sets, ", listed(parts), " hurt as much.");
}

Family random_family(const Run& run, const Teller& tell) {
  Family f{.id = "targets", .design = "random", .kicker = "Against chance"};
  const auto sets = control_sets(run);
  for (const ControlSet& set : sets)
    if (std::find(f.rows.begin(), f.rows.end(), set.target) == f.rows.end()) f.rows.push_back(set.target);
  for (std::size_t i = 0; i < std::min<std::size_t>(f.rows.size(), 6); ++i)
    f.detail += verdict_of(tell, *f.rows[i], sets, sets.size()) + " ";
  if (f.rows.empty()) return f;
  f.headline = verdict_of(tell, *f.rows[0], sets, 1);
  for (const ControlSet& set : sets) {
    const Result& r = set.rank ? *set.rank : *set.target;
    if (std::isfinite(r.control_gap) && has_size(r))
      f.detail += cat(capitalised(tell.name(r)), " lies ",
                      with_interval({r.control_gap, r.control_ci_low, r.control_ci_high}, tell.unit(r)),
                      " from the mean of random sets of ", matched_by(set.match_kind), ". ");
  }
  const bool ranked = std::any_of(sets.begin(), sets.end(), [](const ControlSet& set) { return set.rank; });
  f.fine_print = cat(counted(static_cast<long long>(sets.size()), "comparison"),
                     ranked ? "; p: two-sided rank among the draws, adjusted within each way of matching"
                            : "; p = (draws at least as harmful + 1) / (draws + 1), not adjusted",
                     ". Two collapsed sets count as equally harmful.");
  return f;
}

Family pareto_family(const Run& run, const Teller& tell) {
  Family f{.id = "pareto", .design = "pareto", .kicker = "What could be saved"};
  std::vector<std::string> parts;
  for (const Saving& saving : savings()) {
    const Rows front = pareto_front(run, saving);
    const Result* best = nullptr;
    for (const Result* r : front) {
      if (tell.effect(*r).value <= kFelt) best = r;
      if (std::find(f.rows.begin(), f.rows.end(), r) == f.rows.end()) f.rows.push_back(r);
    }
    if (best)
      parts.push_back(
          cat(saving.phrase(saving.of(run, *best)), " under ", tell.name(*best), ", at ", tell.size(*best)));
  }
  if (f.rows.empty()) return f;
  f.headline = parts.empty() ? cat("No removal stays within ", decimal(kFelt, 1), " nats per token.")
                             : cat("The most one can save within ", decimal(kFelt, 1), " nats per token is ",
                                   parts[0], ".");
  for (std::size_t i = 1; i < parts.size(); ++i) f.detail += (i == 1 ? "Also " : "; also ") + parts[i];
  if (parts.size() > 1) f.detail += ".";
  f.fine_print =
      "The fronts are chosen among many estimates, so the best of them is likely to be a little too good.";
  return f;
}

// Single sites that no curve over blocks holds: heads, channels.
Rows singles_below_blocks(const Run& run) {
  Rows rows = results_of(run, "single");
  for (const Curve& curve : single_curves(run))
    for (const Curve::Point& p : curve.points) std::erase(rows, p.result);
  return rows;
}

constexpr double kTimingNoise = 0.03;  // of the whole model's time: less is no saving

// Against the whole model on the same items.
double seconds_saved(const Run& run, const Result& r) {
  const auto baseline = std::find_if(run.results.begin(), run.results.end(), [&](const Result& other) {
    return other.measure == r.measure && run.condition(other).design == "baseline";
  });
  if (baseline == run.results.end()) return kNone;
  const double saved = baseline->seconds - r.seconds;
  return saved > kTimingNoise * baseline->seconds ? saved : kNone;
}

}  // namespace

std::vector<Family> families(const Run& run) {
  const Teller tell(run);
  std::vector<Family> all = {group_family(run, tell), random_family(run, tell)};
  for (const Curve& curve : single_curves(run)) all.push_back(single_family(run, tell, curve));
  all.push_back(ranked_family(tell, "part", "Less than a block", "part", singles_below_blocks(run)));
  all.push_back(ranked_family(tell, "third", "By thirds of the depth", "third", results_of(run, "third")));
  all.push_back(ranked_family(tell, "window", "Neighbours together", "window", results_of(run, "window")));
  all.push_back(cumulative_family(run, tell));
  all.push_back(leave_in_family(run, tell));
  all.push_back(pair_family(run, tell));
  all.push_back(shapley_family(run, tell));
  all.push_back(dose_family(run, tell));
  all.push_back(ranked_family(tell, "spec", "Named interventions", "intervention", results_of(run, "spec")));
  all.push_back(factor_family(tell, "context", "By length of context", context_curves(run),
                              [](const std::string& n) { return "with " + n + " tokens of context"; }));
  all.push_back(factor_family(tell, "position", "By position in the text", position_curves(run),
                              [](const std::string& n) { return "from position " + n + " on"; }));
  all.push_back(factor_family(
      tell, "distance", "By distance to the needed token", distance_curves(run), [](const std::string& n) {
        return "where the pair of tokens was last seen " + n + " or more tokens before";
      }));
  all.push_back(remembrance_family(run, tell));
  all.push_back(pareto_family(run, tell));
  std::erase_if(all, [](const Family& f) { return f.rows.empty() || f.headline.empty(); });
  for (Family& f : all)
    if (f.fine_print.empty()) f.fine_print = tell.fine_print(f.rows);
  return all;
}

const std::vector<Saving>& savings() {
  const auto count = [](long long ConditionRow::*member) {
    return
        [member](const Run& run, const Result& r) { return static_cast<double>(run.condition(r).*member); };
  };
  static const std::vector<Saving> all = {
      {"params", "Parameters", count(&ConditionRow::params_removed),
       [](double n) { return human_count(n) + " parameters"; }},
      {"state_bytes", "State", count(&ConditionRow::state_bytes_removed),
       [](double n) { return human_bytes(n) + " of state"; }},
      {"kv_bytes", "Key-value cache", count(&ConditionRow::kv_bytes_removed),
       [](double n) { return human_bytes(n) + " of cache per token"; }},
      {"seconds", "Time", seconds_saved, [](double s) { return fixed(s, 2) + " s"; }}};
  return all;
}

std::vector<const Result*> removals(const Run& run) {
  Rows found;
  for (const Result& r : run.results) {
    const std::string& design = run.condition(r).design;
    const bool candidate =
        design != "baseline" && design != "random" && design != "shapley" && design != "dose";
    if (r.measure == run.primary && candidate && has_size(r)) found.push_back(&r);
  }
  return found;
}

std::vector<const Result*> pareto_front(const Run& run, const Saving& saving) {
  Rows rows = removals(run);
  const auto saved = [&](const Result* r) { return saving.of(run, *r); };
  const auto harm = [&](const Result* r) { return effect_of(*r, run.measure(*r)).value; };
  std::erase_if(rows, [&](const Result* r) { return !(saved(r) > 0); });
  std::stable_sort(rows.begin(), rows.end(), [&](const Result* a, const Result* b) {
    return harm(a) != harm(b) ? harm(a) < harm(b) : saved(a) > saved(b);
  });
  Rows front;
  for (const Result* r : rows)
    if (front.empty() || saved(r) > saved(front.back())) front.push_back(r);
  return front;
}

double sum_of_parts(const Run& run, const Result& pair) {
  const ConditionRow& c = run.condition(pair);
  if (c.layers.size() != 2) return kNone;
  double sum = 0;
  for (const int layer : c.layers) {
    const auto single =
        std::find_if(run.conditions.begin(), run.conditions.end(), [&](const ConditionRow& other) {
          return other.design == "single" && other.intervention() == c.intervention() &&
                 other.heads.empty() && other.layers == std::vector<int>{layer};
        });
    const Result* r = single == run.conditions.end()
                          ? nullptr
                          : run.find(static_cast<int>(single - run.conditions.begin()), pair.measure);
    if (!r || !has_size(*r)) return kNone;
    sum += effect_of(*r, run.measure(*r)).value;
  }
  return sum;
}

}  // namespace plait::ablate::report
