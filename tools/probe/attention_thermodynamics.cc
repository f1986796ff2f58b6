#include "tools/probe/attention_thermodynamics.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/plot/chart.h"

namespace plait::probe {
namespace {

// Temperatures of the curves, over the head's own: 1/16 to 16 in half octaves.
constexpr int kOctaves = 4, kSteps = 2;
constexpr std::size_t kNamed = 8;  // curves of a panel that have room for their names
constexpr int kColours = 7;

Thermodynamics mean_over_rows(const std::vector<std::vector<double>>& rows, double kt, double relative) {
  Thermodynamics sum;
  for (const std::vector<double>& logits : rows) {
    const Thermodynamics t = thermodynamics(logits, kt, relative);
    sum.free_energy += t.free_energy;
    sum.energy += t.energy;
    sum.entropy += t.entropy;
    sum.heat_capacity += t.heat_capacity;
  }
  const auto n = static_cast<double>(rows.size());
  return {sum.free_energy / n, sum.energy / n, sum.entropy / n, sum.heat_capacity / n};
}

std::vector<std::vector<double>> logits_of(const Reading& reading, const AttentionNode& node, Index head) {
  const std::optional<double> sink = sink_logit(*reading.model, node, head);
  std::vector<std::vector<double>> rows;
  for (Index i = reading.first_row(); i < reading.length(); ++i) {
    rows.push_back(node.sequence->look(i, head).logits);
    if (sink) rows.back().push_back(*sink);
  }
  return rows;
}

plot::LineChart::Series curve(const std::vector<std::vector<double>>& rows, Index head, double kt,
                              double Thermodynamics::*quantity) {
  plot::LineChart::Series series{"", static_cast<int>(head % kColours), {}};
  for (int step = -kOctaves * kSteps; step <= kOctaves * kSteps; ++step) {
    const double relative = std::exp2(static_cast<double>(step) / kSteps);
    const double value = mean_over_rows(rows, kt, relative).*quantity;
    series.points.push_back(plot::LineChart::Point::plain(relative, value, series.colour,
                                                          cat("head ", head, ": ", fixed(value, 3))));
  }
  return series;
}

plot::LineChart chart_of(const char* title) {
  plot::LineChart chart;
  chart.caption = {"", title, "Over the temperature, relative to the head's own."};
  chart.x_label = "temperature over the head's own";
  chart.axis = plot::LineChart::Axis::doubling;
  return chart;
}

}  // namespace

Thermodynamics thermodynamics(std::span<const double> logits, double kt, double relative) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double z = 0, first = 0, second = 0;  // of y = (s - top) / relative, so that nothing overflows
  for (const double s : logits) {
    const double y = (s - top) / relative, w = std::exp(y);
    if (w == 0) continue;
    z += w;
    first += w * y;
    second += w * y * y;
  }
  const double mean = first / z, log_z = std::log(z);
  return {-kt * (top + relative * log_z), -kt * (top + relative * mean), log_z - mean,
          std::max(0.0, second / z - mean * mean)};
}

void AttentionThermodynamics::add_flags(CLI::App& verb) { add_reading_flags(verb, flags_); }

Findings AttentionThermodynamics::run(const Common& common) const {
  const Reading reading = read_attention(flags_, common);
  Findings found;
  found.json = reading.json();
  std::vector<std::vector<std::string>> rows = {
      {"LAYER", "HEAD", "KT", "FREE ENERGY", "ENERGY", "ENTROPY", "HEAT CAPACITY"}};
  plot::LineChart capacity = chart_of("Heat capacity"), entropy = chart_of("Entropy");
  capacity.unit = "heat capacity, Var(E) / (kT)\u00b2";
  entropy.unit = "entropy, nats";
  Progress progress(common, "reading heads");
  for (std::size_t n = 0; n < reading.nodes.size(); ++n) {
    const AttentionNode& node = reading.nodes[n];
    const double kt = 1 / scale_of(node.settings.score.front());
    auto& capacities = capacity.panels.emplace_back(plot::LineChart::Panel{node.name, {}});
    auto& entropies = entropy.panels.emplace_back(plot::LineChart::Panel{node.name, {}});
    for (const Index head : node.heads) {
      const auto logits = logits_of(reading, node, head);
      const Thermodynamics t = mean_over_rows(logits, kt, 1);
      rows.push_back({node.name, cat(head), fixed(kt, 3), fixed(t.free_energy, 3), fixed(t.energy, 3),
                      fixed(t.entropy, 4), fixed(t.heat_capacity, 4)});
      found.json["heads"].push_back({{"layer", node.name},
                                     {"head", head},
                                     {"kt", kt},
                                     {"free_energy", t.free_energy},
                                     {"energy", t.energy},
                                     {"entropy", t.entropy},
                                     {"heat_capacity", t.heat_capacity}});
      capacities.series.push_back(curve(logits, head, kt, &Thermodynamics::heat_capacity));
      entropies.series.push_back(curve(logits, head, kt, &Thermodynamics::entropy));
      if (node.heads.size() <= kNamed)
        capacities.series.back().name = entropies.series.back().name = cat("head ", head);
    }
    progress.update(static_cast<double>(n + 1) / static_cast<double>(reading.nodes.size()));
  }
  progress.clear();
  found.text = cat(table(rows, "lrrrrrr"), "Means over rows ", reading.first_row(), " to ",
                   reading.length() - 1, "; F = U - kT S. Energies in units of q.k, entropy in nats.\n");
  found.figures.push_back(
      figure_of(std::move(capacity),
                "A peak right of 1 is a head that is colder than its own transition: it has "
                "chosen its keys; a peak left of 1 a head that still spreads."));
  found.figures.push_back(figure_of(std::move(entropy),
                                    "Entropy rises from 0, one key, to the logarithm of "
                                    "the number of keys."));
  return found;
}

}  // namespace plait::probe
