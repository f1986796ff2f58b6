#include "tools/probe/frobenius.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <set>

#include "layers/reference/attention_options.h"
#include "layers/reference/dense.h"
#include "layers/reference/recurrence.h"
#include "runtime/base/error.h"
#include "tools/plot/chart.h"
#include "tools/plot/line_colour.h"
#include "tools/within.h"

namespace plait::probe {
namespace {

using reference::Rows;

Rows random_rows(Index rows, Index cols, double deviation, Source& source) {
  Rows all(rows, cols);
  for (double& x : all.data) x = deviation * source.normal();
  return all;
}

// x w', w [out, x.cols]
Rows product(const Rows& x, const Rows& w) {
  Rows y(x.rows, w.rows);
  dense_product(x.view(), w.data, y.view());
  return y;
}

std::vector<double> row_squares(const Rows& x) {
  std::vector<double> squares;
  for (Index r = 0; r < x.rows; ++r) {
    double sum = 0;
    for (Index c = 0; c < x.cols; ++c) sum += x(r, c) * x(r, c);
    squares.push_back(sum);
  }
  return squares;
}

double whole_power(double x, Index exponent) {
  double result = 1;
  for (Index i = 0; i < exponent; ++i) result *= x;
  return result;
}

// m (m + 2) .. (m + 2 count - 2)
double rising(double m, Index count) {
  double result = 1;
  for (Index i = 0; i < count; ++i) result *= m + 2 * static_cast<double>(i);
  return result;
}

}  // namespace

FrobeniusSquares frobenius_squares(const FrobeniusSetting& setting, Index length,
                                   const std::vector<Index>& degrees, const Sampling& sampling) {
  const std::unique_ptr<NormaliserTwin> softmax = make_twin(NormaliserOption(Softmax{}), Parameters{});
  const std::size_t count = degrees.size();
  const double head_dim = static_cast<double>(setting.head_dim);
  TwinRow row;
  for (Index j = 0; j < length; ++j) row.keys.push_back(j);
  const auto estimates =
      average(sampling, static_cast<Index>(3 * count + 3), [&](Source& source, double* values) {
        const Rows x = random_rows(length, setting.width, setting.input_deviation, source);
        const Rows q =
            product(x, random_rows(setting.head_dim, setting.width, setting.weight_deviation, source));
        const Rows k =
            product(x, random_rows(setting.head_dim, setting.width, setting.weight_deviation, source));
        Rows s = product(q, k), transposed = product(k, q);
        for (Rows* scores : {&s, &transposed})
          reference::map(*scores, [&](double value) { return value / std::sqrt(head_dim); });
        const std::vector<double> x_squares = row_squares(x), k_squares = row_squares(k);
        std::fill_n(values, 3 * count + 3, 0.0);
        for (Index i = 0; i < length; ++i) {
          for (Index j = 0; j < length; ++j)
            for (std::size_t p = 0; p < count; ++p) {
              const double lower = whole_power(s(i, j), degrees[p] - 1), power = lower * s(i, j);
              values[3 * p] += power * power;
              if (j <= i) values[3 * p + 1] += power * power;
              // ds_ij / dQ_ab = x_ia k_jb / sqrt d
              const double slope = static_cast<double>(degrees[p]) * lower;
              values[3 * p + 2] += slope * slope * x_squares[static_cast<std::size_t>(i)] *
                                   k_squares[static_cast<std::size_t>(j)] / head_dim;
            }
          const std::vector<double> a = softmax->weights(row, {s.row(i), s.row(i) + length});
          for (const double w : a) values[3 * count] += w * w;
          values[3 * count + 1] += jacobian_square(a);
        }
        for (const double square : row_squares(product(s, transposed))) values[3 * count + 2] += square;
      });
  FrobeniusSquares squares;
  for (std::size_t p = 0; p < count; ++p)
    squares.powers.push_back({estimates[3 * p], estimates[3 * p + 1], estimates[3 * p + 2]});
  squares.softmax = estimates[3 * count];
  squares.jacobian = estimates[3 * count + 1];
  squares.product = estimates[3 * count + 2];
  return squares;
}

double expected_square(const FrobeniusSetting& setting, Index length, Index degree, Part part) {
  const double n = static_cast<double>(length), p = static_cast<double>(degree);
  const double width = static_cast<double>(setting.width), head_dim = static_cast<double>(setting.head_dim);
  // (2p - 1)!! = 1 3 .. (2p - 1)
  const double common = rising(1, degree) * std::pow(setting.weight_deviation, 4 * p) *
                        std::pow(setting.input_deviation, 4 * p) * rising(head_dim, degree) /
                        std::pow(head_dim, p);
  const double off = common * rising(width, degree) * rising(width, degree);
  const double on = common * rising(width, 2 * degree);
  return n * (n - 1) * (part == Part::causal ? 0.5 : 1) * off + n * on;
}

double jacobian_square(const std::vector<double>& weights) {
  double squares = 0, cubes = 0;
  for (const double a : weights) squares += a * a, cubes += a * a * a;
  return squares - 2 * cubes + squares * squares;
}

plot::Effect root_effect(const Estimate& square, double factor) {
  const double root = std::sqrt(square.mean()), half = 1.96 * square.error() / (2 * root);
  return {factor * root, factor * (root - half), factor * (root + half)};
}

void Frobenius::add_flags(CLI::App& verb) {
  verb.add_option("-n,--lengths", lengths_, "Lengths N (default 32,64,128,256)")
      ->delimiter(',')
      ->check(CLI::Range(Index{2}, Index{1} << 14));
  verb.add_option("--degrees", degrees_, "Powers p (default 1,2,3)")
      ->delimiter(',')
      ->check(CLI::Range(Index{1}, Index{8}));
  verb.add_option("--width", setting_.width, "Columns D of the input (default 64)")
      ->check(CLI::Range(Index{1}, Index{1} << 14));
  verb.add_option("--head-dim", setting_.head_dim, "Columns d of queries and keys (default 32)")
      ->check(CLI::Range(Index{1}, Index{1} << 14));
  verb.add_option("--sx", setting_.input_deviation, "Standard deviation of the input (default 1)")
      ->check(within(1e-3, 1e3));
  verb.add_option("--st", weight_deviation_, "Standard deviation of the weights (default D^-1/2)")
      ->check(within(1e-3, 1e3));
  verb.add_option("--draws", draws_, "Draws per length (default 48)")
      ->check(CLI::Range(Index{2}, Index{1} << 24));
}

namespace {

// Norms of one sort over the lengths: a row of the table, a line of the figure.
struct Growth {
  std::string name;
  std::vector<double> norms;     // roots of mean squares
  std::vector<double> expected;  // empty where no closed form is known
  std::vector<plot::Effect> shown;
};

}  // namespace

Findings Frobenius::run(const Common& common) const {
  if (std::set<Index>(lengths_.begin(), lengths_.end()).size() < lengths_.size())
    throw UsageError("frobenius: --lengths names a length twice");
  FrobeniusSetting setting = setting_;
  setting.weight_deviation =
      weight_deviation_ > 0 ? weight_deviation_ : 1 / std::sqrt(static_cast<double>(setting.width));
  std::vector<Growth> all;
  for (const Index p : degrees_)
    for (const char* what : {"S^", "causal S^", "dS/dQ, S^"}) all.push_back({cat(what, p), {}, {}, {}});
  for (const char* what : {"softmax", "its Jacobian", "S S"}) all.push_back({what, {}, {}, {}});

  Progress progress(common, "norms");
  std::vector<double> lengths;
  double work = 0, done = 0;
  for (const Index n : lengths_) work += static_cast<double>(n * n);
  for (std::size_t i = 0; i < lengths_.size(); ++i) {
    const Index n = lengths_[i];
    const double weight = static_cast<double>(n * n);
    Sampling sampling = sampling_of(common, i + 1, draws_);
    sampling.progress = [&](double fraction) { progress.update((done + fraction * weight) / work); };
    const FrobeniusSquares squares = frobenius_squares(setting, n, degrees_, sampling);
    done += weight;
    lengths.push_back(static_cast<double>(n));
    std::size_t g = 0;
    const auto add = [&](const Estimate& square, double expected, double factor) {
      all[g].norms.push_back(std::sqrt(square.mean()));
      if (expected > 0) all[g].expected.push_back(std::sqrt(expected));
      all[g++].shown.push_back(root_effect(square, factor));
    };
    for (std::size_t p = 0; p < degrees_.size(); ++p) {
      const double full = expected_square(setting, n, degrees_[p], Part::full),
                   degree = static_cast<double>(degrees_[p]);
      const double factor = 1 / std::sqrt(static_cast<double>(n));
      add(squares.powers[p].full, full, factor);
      add(squares.powers[p].causal, expected_square(setting, n, degrees_[p], Part::causal), factor);
      add(squares.powers[p].gradient,
          full * degree * degree / ((2 * degree - 1) * setting.weight_deviation * setting.weight_deviation),
          factor);
    }
    add(squares.softmax, 0, 1);
    add(squares.jacobian, 0, 1);
    add(squares.product, 0, 1);
  }

  Findings found;
  found.json = {
      {"lengths", lengths_},           {"width", setting.width},         {"head_dim", setting.head_dim},
      {"sx", setting.input_deviation}, {"st", setting.weight_deviation}, {"draws", draws_}};
  std::vector<std::vector<std::string>> rows = {{"NORM"}};
  for (const Index n : lengths_) rows[0].push_back(cat("N=", n));
  rows[0].push_back("SLOPE");
  plot::LineChart chart;
  chart.caption = {"", "Norms", "Frobenius norms by length."};
  chart.x_label = "length N";
  chart.unit = "Frobenius norm";
  chart.axis = plot::LineChart::Axis::doubling;
  chart.scale = plot::LineChart::Scale::tenfold;
  chart.panels = {{"S^p / sqrt N, softmax, and its bound", {}}};
  for (const Growth& growth : all) {
    const double slope = lengths.size() > 1 ? log_slope(lengths, growth.norms) : plot::kNone;
    rows.push_back({cat(growth.name, growth.expected.empty() ? "" : " / N")});
    for (std::size_t i = 0; i < lengths.size(); ++i)
      rows.back().push_back(fixed(growth.norms[i] / (growth.expected.empty() ? 1 : lengths[i]), 3));
    rows.back().push_back(std::isfinite(slope) ? fixed(slope, 3) : lengths.size() > 1 ? "-" : "");
    Json entry = {{"name", growth.name}, {"norms", growth.norms}};
    if (lengths.size() > 1) entry["slope"] = slope;
    if (!growth.expected.empty()) {
      entry["expected"] = growth.expected;
      rows.push_back({"  in closed form"});
      for (std::size_t i = 0; i < lengths.size(); ++i)
        rows.back().push_back(fixed(growth.expected[i] / lengths[i], 3));
    }
    found.json["growth"].push_back(entry);
    if (growth.name.find("S/") != std::string::npos || growth.name.starts_with("causal") ||
        growth.name == "S S" || growth.name == "its Jacobian")
      continue;
    auto& series = chart.panels[0].series;
    const int colour = plot::line_colour(series.size());
    series.push_back({growth.name, colour, {}});
    for (std::size_t i = 0; i < lengths.size(); ++i)
      series.back().points.push_back({lengths[i], growth.shown[i], plot::Certainty::clear, colour,
                                      cat(growth.name, ", N ", lengths_[i])});
  }
  auto& series = chart.panels[0].series;
  series.push_back({"bound sqrt N", plot::line_colour(series.size()), {}});
  for (const double n : lengths)
    series.back().points.push_back(
        {n, {std::sqrt(n)}, plot::Certainty::clear, series.back().colour, "bound"});
  found.text = cat(
      table(rows, "l" + std::string(lengths.size() + 1, 'r')), "Roots of mean squares over ", draws_,
      " draws. |softmax| is at most sqrt N, the norm of its Jacobian at most sqrt(N) / 2; S S is a matrix "
      "product, of which the claim is not.\n");
  found.figures.push_back(figure_of(std::move(chart),
                                    "Powers over sqrt N grow like sqrt N, as the bound of softmax does; "
                                    "softmax of random logits does not grow."));
  return found;
}

}  // namespace plait::probe
