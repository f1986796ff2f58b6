#include "tools/probe/pooled_retrieval.h"

#include <CLI/CLI.hpp>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"
#include "tools/npy.h"
#include "tools/plot/chart.h"
#include "tools/within.h"

namespace plait::probe {
namespace {

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
constexpr double kRounding = 1e-12;  // of cosines and leverages: differences below are none
constexpr std::size_t kFewest = 3;   // values of a calibration: one more than it has parameters

using Partners = std::vector<std::vector<Index>>;

Eigen::Map<const Rows> matrix(const UnitRows& rows) { return {rows.values.data(), rows.count, rows.width}; }

UnitRows read_embeddings(const std::string& path) {
  NpyNumbers numbers = parse_npy_numbers(read_file(path), path);
  if (!numbers.matrix) fail("'", path, "' has one dimension; embeddings are a matrix of one row each");
  if (numbers.rows == 0 || numbers.cols == 0) fail("'", path, "' holds no numbers");
  return unit_rows(numbers.rows, numbers.cols, std::move(numbers.values), path);
}

// Of every row of a its row of b: the same one, or as the file says.
std::vector<Index> read_partners(const std::string& path, const std::string& a_path, const UnitRows& a,
                                 const std::string& b_path, const UnitRows& b) {
  std::vector<Index> partners(static_cast<std::size_t>(a.count));
  if (path.empty()) {
    if (a.count > b.count)
      fail("'", a_path, "' has ", a.count, " rows and '", b_path, "' ", b.count,
           "; without --partners row i belongs to row i");
    std::iota(partners.begin(), partners.end(), Index{0});
    return partners;
  }
  const std::vector<std::int64_t> rows = parse_npy_integers(read_file(path), path);
  if (rows.size() != partners.size())
    fail("'", path, "' has ", rows.size(), " partners for the ", a.count, " rows of '", a_path, "'");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= b.count)
      fail("partner ", i, " of '", path, "' is ", rows[i], "; '", b_path, "' has ", b.count, " rows");
    partners[i] = rows[i];
  }
  return partners;
}

std::vector<double> read_measured(const std::string& path, const std::string& a_path, Index count) {
  NpyNumbers numbers = parse_npy_numbers(read_file(path), path);
  if (numbers.cols != 1 || numbers.rows != count)
    fail("'", path, "' holds ", numbers.rows, " rows of ", numbers.cols, "; one value for each of the ",
         count, " rows of '", a_path, "' is wanted");
  return std::move(numbers.values);
}

struct Measured {
  std::vector<double> scores, values;
  std::vector<Index> rows;  // of a
};

// The pairs with a value: cos(a_i, b_partner(i)) / temperature beside it.
Measured measured_pairs(const UnitRows& a, const UnitRows& b, const std::vector<Index>& partners,
                        const std::vector<double>& values, double temperature, const std::string& origin) {
  Measured m;
  for (Index i = 0; i < a.count; ++i) {
    const double value = values[static_cast<std::size_t>(i)];
    if (!std::isfinite(value)) continue;
    m.scores.push_back(matrix(a).row(i).dot(matrix(b).row(partners[static_cast<std::size_t>(i)])) /
                       temperature);
    m.values.push_back(value);
    m.rows.push_back(i);
  }
  if (m.values.size() < kFewest)
    fail("'", origin, "' has ", m.values.size(), " finite values; a calibration needs ", kFewest);
  const auto [least, most] = std::minmax_element(m.scores.begin(), m.scores.end());
  if (*most - *least <= kRounding / temperature)
    fail("'", origin, "': all measured pairs have one score, so that no line fits them");
  return m;
}

// Powers of two up to the pool, and the pool itself.
std::vector<Index> curve_places(Index pool) {
  std::vector<Index> places;
  for (Index k = 1; k < pool; k *= 2) places.push_back(k);
  places.push_back(pool);
  return places;
}

}  // namespace

UnitRows unit_rows(Index count, Index width, std::vector<double> values, const std::string& origin) {
  UnitRows rows{count, width, std::move(values)};
  for (Index r = 0; r < count; ++r) {
    Eigen::Map<Eigen::VectorXd> row(rows.values.data() + r * width, width);
    const double norm = row.stableNorm();  // no square that overflows
    if (!std::isfinite(norm)) fail("row ", r, " of '", origin, "' is not finite");
    if (norm == 0) fail("row ", r, " of '", origin, "' is zero and has no direction");
    row /= norm;
  }
  return rows;
}

double Retrieval::recall(Index k) const {
  const auto found = std::count_if(rank.begin(), rank.end(), [&](Index r) { return r <= k; });
  return static_cast<double>(found) / static_cast<double>(rank.size());
}

double Retrieval::median_rank() const {
  std::vector<Index> sorted = rank;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t n = sorted.size();
  return static_cast<double>(sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

Retrieval retrieve(const UnitRows& queries, const UnitRows& pool, const Partners& partners,
                   double temperature, int threads) {
  std::vector<Index> asked;
  for (Index q = 0; q < queries.count; ++q)
    if (!partners[static_cast<std::size_t>(q)].empty()) asked.push_back(q);
  Retrieval found;
  found.rank.resize(asked.size());
  std::vector<double> losses(asked.size());
  parallel_for(threads, static_cast<Index>(asked.size()), [&](Index i) {
    const auto at = static_cast<std::size_t>(i);
    const std::vector<Index>& own = partners[static_cast<std::size_t>(asked[at])];
    // Dot by dot, not as one product: equal candidates have equal scores.
    Eigen::VectorXd scores(pool.count);
    for (Index p = 0; p < pool.count; ++p)
      scores[p] = matrix(pool).row(p).dot(matrix(queries).row(asked[at])) / temperature;
    double best = scores[own[0]];
    for (const Index p : own) best = std::max(best, scores[p]);
    const double top = scores.maxCoeff(), all = (scores.array() - top).exp().sum();
    double share = 0;
    Index equal = 0;  // partners of the best one's score, itself included: no candidates before it
    for (const Index p : own) {
      share += std::exp(scores[p] - best);
      equal += scores[p] == best;
    }
    found.rank[at] = 1 + (scores.array() >= best).count() - equal;
    losses[at] = top - best + std::log(all) - std::log(share);
  });
  found.loss = std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  return found;
}

Calibration calibrate(const std::vector<double>& scores, const std::vector<double>& values) {
  const auto n = static_cast<double>(scores.size());
  const double x = std::accumulate(scores.begin(), scores.end(), 0.0) / n,
               y = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double xx = 0, xy = 0, yy = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    xx += (scores[i] - x) * (scores[i] - x);
    xy += (scores[i] - x) * (values[i] - y);
    yy += (values[i] - y) * (values[i] - y);
  }
  Calibration c;
  c.alpha = xy / xx;
  c.beta = y - c.alpha * x;
  c.correlation = yy > 0 ? xy / std::sqrt(xx * yy) : 0;
  double squares = 0, left_out = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const double off = values[i] - c.alpha * scores[i] - c.beta;
    // Leaving value i out turns its residual into off / (1 - leverage); at leverage 1 the others have no
    // line.
    const double rest = 1 - 1 / n - (scores[i] - x) * (scores[i] - x) / xx;
    squares += off * off;
    left_out += rest > kRounding ? off * off / (rest * rest) : HUGE_VAL;
  }
  c.error = std::sqrt(squares / n);
  c.left_out_error = std::sqrt(left_out / n);
  const double variance = squares / (n - 2);
  c.alpha_error = std::sqrt(variance / xx);
  c.beta_error = std::sqrt(variance * (1 / n + x * x / xx));
  return c;
}

void PooledRetrieval::add_flags(CLI::App& verb) {
  verb.add_option("a", a_, "Embeddings, one row each: .npy, float32 or float64")
      ->required()
      ->type_name("A.npy");
  verb.add_option("b", b_, "The pool: row i belongs to row i of A, further rows to none")
      ->required()
      ->type_name("B.npy");
  verb.add_option("--partners", partners_, "Of every row of A its row of B: .npy, int32 or int64")
      ->type_name("F.npy");
  verb.add_option("--temperature", temperature_, "Scores are cosines over this (default 0.07)")
      ->check(within(1e-6, 1e6));
  verb.add_option("--top", top_, "Recall among the first k (default 1,10)")
      ->delimiter(',')
      ->check(CLI::Range(Index{1}, Index{1} << 40));
  verb.add_option("--measured", measured_,
                  "A value of every row of A, nan where there is none: .npy; calibrated against the scores")
      ->type_name("F.npy");
}

Findings PooledRetrieval::run(const Common& common) const {
  const UnitRows a = read_embeddings(a_), b = read_embeddings(b_);
  if (a.width != b.width) fail("'", a_, "' has rows of ", a.width, " numbers and '", b_, "' of ", b.width);
  const std::vector<Index> partners = read_partners(partners_, a_, a, b_, b);
  Findings found;
  found.json = {{"a", a_}, {"b", b_}, {"width", a.width}, {"temperature", temperature_}};
  add_retrieval(a, b, partners, common, found);
  if (!measured_.empty()) add_calibration(a, b, partners, found);
  return found;
}

void PooledRetrieval::add_retrieval(const UnitRows& a, const UnitRows& b, const std::vector<Index>& partners,
                                    const Common& common, Findings& found) const {
  Partners of_a(static_cast<std::size_t>(a.count)), of_b(static_cast<std::size_t>(b.count));
  for (Index i = 0; i < a.count; ++i) {
    const Index p = partners[static_cast<std::size_t>(i)];
    of_a[static_cast<std::size_t>(i)] = {p};
    of_b[static_cast<std::size_t>(p)].push_back(i);
  }
  std::vector<std::vector<std::string>> rows = {{"DIRECTION", "QUERIES", "POOL"}};
  for (const Index k : top_) rows[0].push_back(cat("RECALL@", k));
  for (const char* column : {"MEDIAN RANK", "LOSS", "LN POOL"}) rows[0].emplace_back(column);
  plot::LineChart chart;
  chart.caption = {"", "Recall", "Share of queries with their partner among the first k, by k."};
  chart.x_label = "k";
  chart.unit = "recall@k";
  chart.axis = plot::LineChart::Axis::doubling;
  chart.panels = {{cat(a.count, " rows against a pool of ", b.count), {}}};
  const int threads = common.compute(Numerics::exact).threads;
  const auto add = [&](const char* direction, const Retrieval& r, Index pool) {
    rows.push_back({direction, cat(r.rank.size()), cat(pool)});
    Json recalls = Json::object();
    for (const Index k : top_) {
      rows.back().push_back(fixed(r.recall(k), 4));
      recalls[cat(k)] = r.recall(k);
    }
    rows.back().insert(rows.back().end(), {fixed(r.median_rank(), 1), fixed(r.loss, 4),
                                           fixed(std::log(static_cast<double>(pool)), 4)});
    found.json["retrieval"].push_back({{"direction", direction},
                                       {"queries", r.rank.size()},
                                       {"pool", pool},
                                       {"recall", recalls},
                                       {"median_rank", r.median_rank()},
                                       {"loss", r.loss},
                                       {"ranks", r.rank}});
    auto& series = chart.panels[0].series;
    const int kind = static_cast<int>(series.size());
    series.push_back({direction, kind, {}});
    for (const Index k : curve_places(pool))
      series.back().points.push_back(
          plot::LineChart::Point::plain(static_cast<double>(k), r.recall(k), kind,
                                        cat(direction, ", k = ", k, ": ", fixed(r.recall(k), 3))));
  };
  add("a to b", retrieve(a, b, of_a, temperature_, threads), b.count);
  add("b to a", retrieve(b, a, of_b, temperature_, threads), a.count);
  plot::LineChart::Series chance{"chance", 2, {}};
  for (const Index k : curve_places(b.count)) {
    const double share = static_cast<double>(k) / static_cast<double>(b.count);
    chance.points.push_back(plot::LineChart::Point::plain(
        static_cast<double>(k), share, 2, cat("a to b by chance, k = ", k, ": ", fixed(share, 3))));
  }
  chart.panels[0].series.push_back(std::move(chance));
  found.text = cat(table(rows, "l" + std::string(rows[0].size() - 1, 'r')),
                   "A query is a row with a partner. Loss: mean of -ln of the partners' share in the softmax "
                   "over the pool; ln pool is that of equal scores.\n");
  found.figures.push_back(
      figure_of(std::move(chart),
                "Share of queries with a partner among the first k of the pool; chance is k / pool, of "
                "a to b."));
}

void PooledRetrieval::add_calibration(const UnitRows& a, const UnitRows& b,
                                      const std::vector<Index>& partners, Findings& found) const {
  const Measured m =
      measured_pairs(a, b, partners, read_measured(measured_, a_, a.count), temperature_, measured_);
  const Calibration c = calibrate(m.scores, m.values);
  found.text += cat("\nmeasured = ", fixed(c.alpha, 4), " (+- ", fixed(c.alpha_error, 4), ") score + ",
                    fixed(c.beta, 4), " (+- ", fixed(c.beta_error, 4), "), of ", m.values.size(),
                    " pairs\ncorrelation ", fixed(c.correlation, 4), ", root mean square error ",
                    fixed(c.error, 4), ", by the line of all other pairs ", fixed(c.left_out_error, 4), "\n");
  found.json["calibration"] = {{"pairs", m.values.size()},      {"alpha", c.alpha},
                               {"alpha_stderr", c.alpha_error}, {"beta", c.beta},
                               {"beta_stderr", c.beta_error},   {"correlation", c.correlation},
                               {"rms_error", c.error},          {"left_out_rms_error", c.left_out_error}};
  plot::ScatterChart chart;
  chart.caption = {"", "Calibration", "Measured values against those of the calibrated scores."};
  chart.title = "Measured against calibrated";
  chart.x_label = "alpha score + beta";
  chart.y_label = "measured";
  chart.guide = plot::ScatterChart::Guide::diagonal;
  chart.from_zero = false;
  for (std::size_t i = 0; i < m.values.size(); ++i)
    chart.points.push_back({c.alpha * m.scores[i] + c.beta, m.values[i], "", false, 0,
                            cat("row ", m.rows[i], ": measured ", fixed(m.values[i], 3))});
  found.figures.push_back(
      figure_of(std::move(chart),
                "One mark per measured pair; on the line where the calibrated score is the "
                "measured value."));
}

}  // namespace plait::probe
