#include "tools/probe/vertex_softmax.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/base/parallel.h"
#include "tools/plot/chart.h"
#include "tools/within.h"

namespace plait::probe {
namespace {

using Row = std::vector<double>;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

constexpr Index kRowBlock = 16;  // rows between two words on progress

// -- how a cached row is rounded

struct Rounding {
  // x [n] as the cache gives it back, and how far any x of the kind may be from that, per element.
  Row (*stored)(std::span<const double> x);
  Row (*error)(std::span<const double> x);
};

constexpr double kToFloat = 0x1p-24;  // the engine rounds to f32 before it rounds to the cache's type

Row each(std::span<const double> x, double (*f)(double)) {
  Row y;
  for (const double v : x) y.push_back(f(v));
  return y;
}

Row stored_bf16(std::span<const double> x) {
  return each(x, [](double v) -> double { return to_float(to_bf16(static_cast<float>(v))); });
}
Row error_bf16(std::span<const double> x) {
  return each(x, [](double v) { return std::abs(v) * (0x1p-8 + 2 * kToFloat) + 0x1p-134; });
}

Row stored_f16(std::span<const double> x) {
  return each(x, [](double v) -> double {
    const float narrow = to_float(to_f16(static_cast<float>(v)));
    if (std::isinf(narrow))
      fail("a cached element is ", v, ", which f16 does not hold; the largest is 65504");
    return narrow;
  });
}
Row error_f16(std::span<const double> x) {
  return each(x, [](double v) { return std::abs(v) * (0x1p-11 + 2 * kToFloat) + 0x1p-25; });
}

double largest(std::span<const double> x) {
  double most = 0;
  for (const double v : x) most = std::max(most, std::abs(v));
  return most;
}

// Codes -127 .. 127 with one scale per key and head, half a step off at most.
Row stored_q8(std::span<const double> x) {
  const double step = largest(x) / 127;
  Row y;
  for (const double v : x) y.push_back(step > 0 ? std::nearbyint(v / step) * step : 0);
  return y;
}
Row error_q8(std::span<const double> x) { return Row(x.size(), largest(x) * (1.0 / 254 + 2 * kToFloat)); }

Rounding rounding_of(const std::string& cache) {
  if (cache == "bf16") return {stored_bf16, error_bf16};
  if (cache == "f16") return {stored_f16, error_f16};
  return {stored_q8, error_q8};
}

// -- what a head's row is known to be

struct HeadRow {
  AttentionTwin::Look look;
  Row low, high;               // logits [keys], a sink's behind them
  Row exact, rounded;          // weights [keys], of the exact and of the stored keys
  std::vector<Row> stored;     // values of the keys as stored; empty for --logit-error
  std::vector<Row> uncertain;  // how far a value may be from it
};

Row softmax(Row s, Index keys) {
  const double top = *std::max_element(s.begin(), s.end());
  double mass = 0;
  for (double& x : s) mass += x = std::exp(x - top);
  for (double& x : s) x /= mass;
  s.resize(at(keys));
  return s;
}

// Logits up to `error`, values exact.
void box(HeadRow& row, double error) {
  for (const double s : row.look.logits) row.low.push_back(s - error), row.high.push_back(s + error);
}

// Products of the query with the stored keys, and between which products those of any keys that are stored so
// lie. Returns the logits of the stored keys.
Row store(HeadRow& row, const AttentionNode& node, const Rounding& rounding) {
  const AttentionTwin::Look& look = row.look;
  Row products, least, most;
  for (std::size_t n = 0; n < look.row.keys.size(); ++n) {
    const std::span key(look.row.vectors[n], at(node.settings.projection.head_dim));
    const std::span value(look.row.values[n], at(node.settings.projection.value_head_dim));
    const Row stored = rounding.stored(key), error = rounding.error(key);
    double exact = 0, product = 0, reach = 0;
    for (std::size_t c = 0; c < key.size(); ++c) {
      exact += look.row.query[c] * key[c];
      product += look.row.query[c] * stored[c];
      reach += std::abs(look.row.query[c]) * error[c];
    }
    products.push_back(product);
    least.push_back(exact - reach);
    most.push_back(exact + reach);
    row.stored.push_back(rounding.stored(value));
    row.uncertain.push_back(rounding.error(value));
  }
  const Row a = node.sequence->logits(look.row, least), b = node.sequence->logits(look.row, most);
  for (std::size_t n = 0; n < a.size(); ++n) {
    row.low.push_back(std::min(a[n], b[n]));
    row.high.push_back(std::max(a[n], b[n]));
  }
  return node.sequence->logits(look.row, products);
}

HeadRow read_head(const Reading& reading, const AttentionNode& node, const Uncertainty& uncertainty,
                  Index token, Index head) {
  HeadRow row{node.sequence->look(token, head), {}, {}, {}, {}, {}, {}};
  Row exact = row.look.logits, rounded = exact;
  if (uncertainty.error > 0)
    box(row, uncertainty.error);
  else
    rounded = store(row, node, rounding_of(uncertainty.cache));
  if (const auto sink = sink_logit(*reading.model, node, head))
    for (Row* s : {&row.low, &row.high, &exact, &rounded}) s->push_back(*sink);
  const auto keys = static_cast<Index>(row.look.row.keys.size());
  row.exact = softmax(std::move(exact), keys);
  row.rounded = softmax(std::move(rounded), keys);
  return row;
}

// A head's part of the output row. o [width, columns] is the output projection behind the gate.
void add_head(OutputBounds& out, const HeadRow& head, Index h, Index dv, const Row& o) {
  const std::size_t keys = head.exact.size(), levels = head.low.size(), columns = o.size() / out.exact.size();
  for (std::size_t n = 0; n < keys; ++n)
    out.logit_reach = std::max(out.logit_reach, (head.high[n] - head.low[n]) / 2);
  Row low(levels, 0), high(levels, 0);  // a sink's value is 0
  for (std::size_t m = 0; m < out.exact.size(); ++m) {
    const double* coefficients = o.data() + m * columns + at(h * dv);
    for (std::size_t n = 0; n < keys; ++n) {
      double value = 0, stored = 0, reach = 0;
      for (std::size_t c = 0; c < at(dv); ++c) {
        value += coefficients[c] * head.look.row.values[n][c];
        if (head.stored.empty()) continue;
        stored += coefficients[c] * head.stored[n][c];
        reach += std::abs(coefficients[c]) * head.uncertain[n][c];
      }
      low[n] = value - reach, high[n] = value + reach;
      out.exact[m] += head.exact[n] * value;
      out.rounded[m] += head.rounded[n] * (head.stored.empty() ? value : stored);
    }
    const Interval range = softmax_range(low, high, head.low, head.high);
    out.low[m] += range.low;
    out.high[m] += range.high;
    out.hull_low[m] += *std::min_element(low.begin(), low.end());
    out.hull_high[m] += *std::max_element(high.begin(), high.end());
  }
}

void require_bounds(const AttentionNode& node, const Uncertainty& uncertainty) {
  if (!std::holds_alternative<MeanReadout>(node.settings.readout))
    fail(node.name, ": its readout is no weighted mean of values, which the bound is for");
  if (node.settings.output_norm)
    fail(node.name, ": its output_norm divides a head by its own size, which no bound here follows");
  if (uncertainty.error > 0) return;
  for (const ScoreOption& option : node.settings.score) {
    if (std::holds_alternative<MlrAttention>(option))
      fail(
          node.name,
          ": mlr_attention takes other channels for every pair, so that an interval of q.k gives no interval "
          "of the logit; --logit-error gives that interval itself");
    if (std::holds_alternative<SinSoftmax>(option) || std::holds_alternative<RowStandardise>(option))
      fail(node.name,
           ": a score option of it does not rise with q.k, so that an interval of q.k gives no "
           "interval of the logit; --logit-error gives that interval itself");
  }
}

double norm(const Row& x) { return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0)); }

// Norm of the distances to the farther end of the interval, over the output's own.
double reach(const OutputBounds& row, const Row& low, const Row& high) {
  Row distance;
  for (std::size_t m = 0; m < row.exact.size(); ++m)
    distance.push_back(std::max(high[m] - row.exact[m], row.exact[m] - low[m]));
  return norm(distance) / norm(row.exact);
}

// What is told of a row: lengths over the output's norm.
struct RowSummary {
  Index row = 0, outside = 0;  // outside: rounded outputs beyond their bounds
  double bound = 0, hull = 0, error = 0, logits = 0;
};

RowSummary summarise(const OutputBounds& bounds, Index row) {
  RowSummary s{row,
               0,
               reach(bounds, bounds.low, bounds.high),
               reach(bounds, bounds.hull_low, bounds.hull_high),
               0,
               bounds.logit_reach};
  Row difference;
  for (std::size_t m = 0; m < bounds.exact.size(); ++m) {
    difference.push_back(bounds.rounded[m] - bounds.exact[m]);
    s.outside += bounds.rounded[m] < bounds.low[m] || bounds.rounded[m] > bounds.high[m];
  }
  s.error = norm(difference) / norm(bounds.exact);
  return s;
}

struct Total {
  double bound = 0, largest = 0, hull = 0, error = 0, logits = 0;  // means over rows; the largest of logits
  Index outside = 0;
};

Total total_of(const std::vector<RowSummary>& rows) {
  Total t;
  const auto count = static_cast<double>(rows.size());
  for (const RowSummary& r : rows) {
    t.bound += r.bound / count, t.hull += r.hull / count, t.error += r.error / count;
    t.largest = std::max(t.largest, r.bound), t.logits = std::max(t.logits, r.logits);
    t.outside += r.outside;
  }
  return t;
}

std::string percent(double share) { return fixed(100 * share, 3) + " %"; }

plot::LineChart::Series series_of(const std::vector<RowSummary>& rows, const char* name, int colour,
                                  double RowSummary::*value) {
  plot::LineChart::Series series{name, colour, {}};
  for (const RowSummary& r : rows)
    series.points.push_back(plot::LineChart::Point::plain(static_cast<double>(r.row), r.*value, colour,
                                                          cat("row ", r.row, ": ", percent(r.*value))));
  return series;
}

// Sums over some keys, relative to their largest logit, so that any box of logits is within reach.
struct Part {
  double top = -std::numeric_limits<double>::infinity();
  double mass = 0, sum = 0;  // of e^(s - top) and of c e^(s - top)

  void add(double s, double c) {
    if (std::isinf(s)) return;  // a key out of reach
    if (s > top) {
      const double shrink = std::exp(top - s);
      mass *= shrink, sum *= shrink, top = s;
    }
    const double y = std::exp(s - top);
    mass += y;
    sum += c * y;
  }
};

double average(const Part& a, const Part& b) {
  const double top = std::max(a.top, b.top), wa = std::exp(a.top - top), wb = std::exp(b.top - top);
  return (a.sum * wa + b.sum * wb) / (a.mass * wa + b.mass * wb);
}

}  // namespace

double least_average(std::span<const double> c, std::span<const double> low, std::span<const double> high) {
  const std::size_t n = c.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return c[a] < c[b]; });
  std::vector<Part> lowered(n + 1);  // of the keys from k on, at `low`
  for (std::size_t k = n; k-- > 0;) {
    lowered[k] = lowered[k + 1];
    lowered[k].add(low[order[k]], c[order[k]]);
  }
  Part raised;  // of the keys before k, at `high`
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t k = 0; k <= n; ++k) {
    best = std::min(best, average(raised, lowered[k]));
    if (k < n) raised.add(high[order[k]], c[order[k]]);
  }
  return best;
}

Interval softmax_range(std::span<const double> c_low, std::span<const double> c_high,
                       std::span<const double> low, std::span<const double> high) {
  Row negative;
  for (const double c : c_high) negative.push_back(-c);
  const double least = least_average(c_low, low, high), most = -least_average(negative, low, high);
  // Every e^x is off by the rounding of x (beyond 745 it is zero) and its own, a sum of n by n roundings and
  // by as many where a larger logit shrinks it; numerator and denominator alike.
  const double eps = std::numeric_limits<double>::epsilon();
  const double spread = std::min(
      745.0, *std::max_element(high.begin(), high.end()) - *std::min_element(low.begin(), low.end()));
  const double slack = 2 * (2 * static_cast<double>(low.size()) + spread + 4) * eps *
                       std::max(largest(c_low), largest(c_high));
  return {least - slack, most + slack};
}

OutputBounds bound_row(const Reading& reading, const AttentionNode& node, const Uncertainty& uncertainty,
                       Index token) {
  require_bounds(node, uncertainty);
  const ProjectionSettings& p = node.settings.projection;
  const Row gates = node.sequence->gates(token);
  Row o = to_double(reading.model->parameters(node.node).tensor("o"));
  for (std::size_t i = 0; i < o.size(); ++i) o[i] *= gates[i % gates.size()];
  const Row zero(at(p.width), 0);
  OutputBounds out{zero, zero, zero, zero, zero, zero, 0};
  for (const Index head : node.heads)
    add_head(out, read_head(reading, node, uncertainty, token, head), head, p.value_head_dim, o);
  return out;
}

void VertexSoftmax::add_flags(CLI::App& verb) {
  add_reading_flags(verb, flags_);
  auto* cache =
      verb.add_option("--cache", uncertainty_.cache, "Keys and values are rounded to this (default bf16)")
          ->check(CLI::IsMember({"bf16", "f16", "q8"}));
  verb.add_option("--logit-error", uncertainty_.error,
                  "Instead: every logit is known up to E, the values exactly")
      ->check(within(1e-12, 1e6))
      ->type_name("E")
      ->excludes(cache);
  verb.add_option("--rows", rows_, "Bound the last N rows (default 32)")
      ->check(CLI::Range(Index{1}, Index{1} << 16))
      ->type_name("N");
}

Findings VertexSoftmax::run(const Common& common) const {
  const Reading reading = read_attention(flags_, common);
  const Index tokens = reading.length(), first = std::max(Index{0}, tokens - rows_);
  const bool has_cache = uncertainty_.error == 0;
  for (const AttentionNode& node : reading.nodes) require_bounds(node, uncertainty_);
  Findings found;
  found.json = reading.json();
  if (has_cache)
    found.json["cache"] = uncertainty_.cache;
  else
    found.json["logit_error"] = uncertainty_.error;
  found.json["rows"] = tokens - first;
  std::vector<std::vector<std::string>> rows = {{"LAYER", "LOGITS", "BOUND", "LARGEST", "HULL"}};
  if (has_cache) rows[0].insert(rows[0].end(), {"ERROR", "OUTSIDE"});
  plot::LineChart chart;
  chart.caption = {"", "Certified bounds", "Relative to the norm of the output, by position."};
  chart.unit = "of the output's norm";
  chart.x_label = "position";
  chart.scale = plot::LineChart::Scale::tenfold;
  Progress progress(common, "bounding rows");
  for (std::size_t n = 0; n < reading.nodes.size(); ++n) {
    const AttentionNode& node = reading.nodes[n];
    std::vector<RowSummary> summaries(at(tokens - first));
    for (Index done = 0; done < tokens - first; done += kRowBlock) {
      const Index count = std::min(kRowBlock, tokens - first - done);
      parallel_for(common.compute(Numerics::exact).threads, count, [&](Index i) {
        const Index row = first + done + i;
        summaries[at(done + i)] = summarise(bound_row(reading, node, uncertainty_, row), row);
      });
      progress.update(
          (static_cast<double>(n) + static_cast<double>(done + count) / static_cast<double>(tokens - first)) /
          static_cast<double>(reading.nodes.size()));
    }
    const Total t = total_of(summaries);
    rows.push_back({node.name, fixed(t.logits, 5), percent(t.bound), percent(t.largest), percent(t.hull)});
    Json layer = {{"layer", node.name},
                  {"logit_reach", t.logits},
                  {"bound", t.bound},
                  {"bound_max", t.largest},
                  {"hull", t.hull}};
    auto& panel = chart.panels.emplace_back(plot::LineChart::Panel{node.name, {}});
    panel.series = {series_of(summaries, "certified", 0, &RowSummary::bound),
                    series_of(summaries, "value hull", 1, &RowSummary::hull)};
    if (has_cache) {
      rows.back().insert(rows.back().end(), {percent(t.error), cat(t.outside)});
      layer["error"] = t.error, layer["outside"] = t.outside;
      panel.series.push_back(series_of(summaries, "error", 2, &RowSummary::error));
    }
    found.json["layers"].push_back(std::move(layer));
  }
  progress.clear();
  found.text = cat(table(rows, has_cache ? "lrrrrrr" : "lrrrr"), "Rows ", first, " to ", tokens - 1,
                   "; half-widths over the norm of the output: means, and the largest. LOGITS: the largest "
                   "half-width of a logit.\n");
  found.figures.push_back(
      figure_of(std::move(chart),
                "How far the output can be from the exact one, certified, beside what the "
                "range of the values alone says" +
                    std::string(has_cache ? " and the error that the cache makes." : ".")));
  return found;
}

}  // namespace plait::probe
