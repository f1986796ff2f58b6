#include "tools/probe/peak_separation.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/base/error.h"
#include "tools/plot/chart.h"
#include "tools/plot/line_colour.h"
#include "tools/within.h"

namespace plait::probe {
namespace {

class PowerWeights final : public NormaliserTwin {
 public:
  explicit PowerWeights(double degree) : degree_(degree) {}
  std::vector<double> weights(const TwinRow&, const std::vector<double>& s) const override {
    std::vector<double> w;
    double sum = 0;
    for (const double x : s) sum += w.emplace_back(std::pow(1 + x, degree_));
    for (double& x : w) x /= sum;
    return w;
  }

 private:
  double degree_;
};

struct Function {
  std::string name;
  std::unique_ptr<NormaliserTwin> twin;
};

std::vector<Function> functions(const std::vector<double>& degrees) {
  std::vector<Function> all;
  all.push_back({"softmax", make_twin(NormaliserOption(Softmax{}), Parameters{})});
  for (const double p : degrees) all.push_back({p == 1 ? "linear" : cat("power ", p), power_weights(p)});
  all.push_back({"taylor_softmax", make_twin(NormaliserOption(TaylorSoftmax{}), Parameters{})});
  all.push_back(
      {"softplus",
       make_twin(NormaliserOption(LocationWeights{LocationWeights::Function::softplus, 0}), Parameters{})});
  return all;
}

}  // namespace

std::unique_ptr<NormaliserTwin> power_weights(double degree) {
  return std::make_unique<PowerWeights>(degree);
}

Peak peak_of(const NormaliserTwin& normaliser, Index n, double gap) {
  TwinRow row;
  row.keys.resize(static_cast<std::size_t>(n));
  std::iota(row.keys.begin(), row.keys.end(), Index{0});
  row.position = n - 1;
  std::vector<double> logits(static_cast<std::size_t>(n));
  const std::vector<double> flat = normaliser.weights(row, logits);
  logits[0] = gap;
  const std::vector<double> raised = normaliser.weights(row, logits);
  Peak peak{raised[0], 0};
  for (std::size_t j = 0; j < flat.size(); ++j)
    peak.separation = std::max(peak.separation, std::abs(raised[j] - flat[j]));
  return peak;
}

double half_gap(const NormaliserTwin& normaliser, Index n) {
  double low = 0, high = 1;
  while (peak_of(normaliser, n, high).weight < 0.5) {
    low = high;
    high *= 2;
    if (high > 1e12) return std::numeric_limits<double>::infinity();
  }
  while (high - low > 1e-9 * high) {
    const double middle = (low + high) / 2;
    (peak_of(normaliser, n, middle).weight < 0.5 ? low : high) = middle;
  }
  return high;
}

void PeakSeparation::add_flags(CLI::App& verb) {
  verb.add_option("-n,--lengths", lengths_, "Keys of a row (default 16,64,...,65536)")
      ->delimiter(',')
      ->check(CLI::Range(Index{2}, Index{1} << 24));
  verb.add_option("--degrees", degrees_, "Of the powers of 1 + s (default 1,2,3)")
      ->delimiter(',')
      ->check(within(0.1, 64));
  verb.add_option("--gap", gap_,
                  "How far the logit is raised (default ln(n - 1), where softmax gives a half)")
      ->check(within(1e-6, 700));
}

Findings PeakSeparation::run(const Common& common) const {
  const std::vector<Function> all = functions(degrees_);
  const std::string at = gap_ > 0 ? cat("at gap ", gap_) : "at gap ln(n - 1)";
  std::vector<std::string> head = {"N", "GAP"};
  for (const Function& f : all) head.push_back(f.name);
  std::vector<std::vector<std::string>> separations = {head}, gaps = {head};
  gaps[0].erase(gaps[0].begin() + 1);
  plot::LineChart separation, half;
  separation.caption = {"", "Separation", cat("Separation of two classes ", at, " by the number of keys.")};
  half.caption = {"", "Gap for a half", "The gap that gives the raised key a half, by the number of keys."};
  separation.x_label = half.x_label = "keys n";
  separation.unit = "largest change of a weight";
  half.unit = "gap of the logit";
  for (plot::LineChart* chart : {&separation, &half}) {
    chart->axis = plot::LineChart::Axis::doubling;
    chart->panels = {{chart == &half ? "gap that gives the raised key a half" : "separation " + at, {}}};
    for (const Function& f : all) {
      auto& series = chart->panels[0].series;
      series.push_back({f.name, plot::line_colour(series.size()), {}});
    }
  }
  half.scale = plot::LineChart::Scale::tenfold;

  Findings found;
  Progress progress(common, "peaks");
  double done = 0;
  for (const Index n : lengths_) {
    const double gap = gap_ > 0 ? gap_ : std::log(static_cast<double>(n - 1));
    separations.push_back({cat(n), fixed(gap, 3)});
    gaps.push_back({cat(n)});
    Json entry = {{"n", n}, {"gap", gap}};
    for (std::size_t f = 0; f < all.size(); ++f) {
      const Peak peak = peak_of(*all[f].twin, n, gap);
      const double enough = half_gap(*all[f].twin, n);
      separations.back().push_back(fixed(peak.separation, 5));
      gaps.back().push_back(fixed(enough, 3));
      entry[all[f].name] = {{"weight", peak.weight}, {"separation", peak.separation}, {"half_gap", enough}};
      const auto point = [&](double value) {
        return plot::LineChart::Point{static_cast<double>(n),
                                      {value},
                                      plot::Certainty::clear,
                                      static_cast<int>(f),
                                      cat(all[f].name, ", n ", n)};
      };
      separation.panels[0].series[f].points.push_back(point(peak.separation));
      if (std::isfinite(enough)) half.panels[0].series[f].points.push_back(point(enough));
      progress.update(++done / static_cast<double>(lengths_.size() * all.size()));
    }
    found.json["rows"].push_back(entry);
  }
  const std::string right(head.size(), 'r');
  found.text =
      cat("Separation: the largest change of a weight when one of n equal logits rises by the gap.\n",
          table(separations, right), "\nThe gap that gives the raised key a weight of a half.\n",
          table(gaps, right));
  found.figures.push_back(figure_of(std::move(separation), cat("Separation ", at, ".")));
  found.figures.push_back(
      figure_of(std::move(half), "Softmax needs ln(n - 1), the power p needs (n - 1)^(1/p) - 1."));
  return found;
}

}  // namespace plait::probe
