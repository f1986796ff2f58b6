#include "tools/probe/attention_maps.h"

#include <CLI/CLI.hpp>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/plot/map_grid.h"

namespace plait::probe {
namespace {

// Larger maps are drawn of their last rows and keys: what a picture can show.
constexpr Index kShown = 96;

plot::MapGrid::Map map_of(const std::string& title, const std::string& subtitle,
                          const std::vector<double>& weights, Index tokens) {
  const Index shown = std::min(tokens, kShown), first = tokens - shown;
  plot::MapGrid::Map map{title, subtitle, {}};
  for (Index i = first; i < tokens; ++i)
    for (Index j = first; j < tokens; ++j)
      map.values.push_back(std::abs(weights[static_cast<std::size_t>(i * tokens + j)]));
  return map;
}

}  // namespace

MapStatistics map_statistics(const std::vector<double>& weights, Index tokens, Index first_row) {
  MapStatistics sums;
  double rows = 0;
  for (Index i = first_row; i < tokens; ++i) {
    const double* a = weights.data() + i * tokens;
    double mass = 0, entropy = 0, distance = 0;
    for (Index j = 0; j < tokens; ++j) mass += std::abs(a[j]);
    if (mass == 0) continue;
    for (Index j = 0; j < tokens; ++j) {
      const double p = std::abs(a[j]) / mass;
      if (p > 0) entropy -= p * std::log(p);
      distance += p * static_cast<double>(std::abs(i - j));
    }
    sums.entropy += entropy;
    sums.effective_keys += std::exp(entropy);
    sums.first += std::abs(a[0]) / mass;
    sums.distance += distance;
    ++rows;
  }
  rows = std::max(rows, 1.0);
  return {sums.entropy / rows, sums.first / rows, sums.distance / rows, sums.effective_keys / rows};
}

void AttentionMaps::add_flags(CLI::App& verb) { add_reading_flags(verb, flags_); }

Findings AttentionMaps::run(const Common& common) const {
  const Reading reading = read_attention(flags_, common);
  const Index tokens = reading.length();
  Findings found;
  found.json = reading.json();
  std::vector<std::vector<std::string>> rows = {
      {"LAYER", "HEAD", "ENTROPY", "KEYS", "FIRST TOKEN", "DISTANCE"}};
  plot::MapGrid grid;
  grid.caption = {"", "Attention weights", "One map per head."};
  grid.size = static_cast<int>(std::min(tokens, kShown));
  grid.x_label = "key";
  grid.y_label = "query";
  Progress progress(common, "reading heads");
  for (std::size_t n = 0; n < reading.nodes.size(); ++n) {
    const AttentionNode& node = reading.nodes[n];
    for (const Index head : node.heads) {
      const std::vector<double> weights = weights_of(node, head, tokens);
      const MapStatistics s = map_statistics(weights, tokens, reading.first_row());
      rows.push_back({node.name, cat(head), fixed(s.entropy, 3), fixed(s.effective_keys, 1),
                      fixed(s.first, 4), fixed(s.distance, 1)});
      found.json["heads"].push_back({{"layer", node.name},
                                     {"head", head},
                                     {"entropy", s.entropy},
                                     {"effective_keys", s.effective_keys},
                                     {"first_token", s.first},
                                     {"distance", s.distance}});
      grid.maps.push_back(map_of(cat("head ", head), node.name, weights, tokens));
    }
    progress.update(static_cast<double>(n + 1) / static_cast<double>(reading.nodes.size()));
  }
  progress.clear();
  found.text = cat(table(rows, "lrrrrr"), "Means over rows ", reading.first_row(), " to ", tokens - 1,
                   "; entropy in nats, keys = e^entropy, distance in tokens.\n");
  found.figures.push_back(figure_of(
      std::move(grid), cat("Weights of the last ", std::min(tokens, kShown), " of ", tokens,
                           " tokens. Shades are logarithmic; weights below 0.2 % are left blank.")));
  return found;
}

}  // namespace plait::probe
