#include "tools/probe/attention_statistics.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/plot/chart.h"
#include "tools/probe/attention_maps.h"
#include "tools/probe/attention_sinks.h"

namespace plait::probe {
namespace {

constexpr double kClosed = 0.1, kOpen = 0.9;

// A head's rows A v [tokens, value_head_dim], before readout and gate.
std::vector<double> head_output(const std::vector<double>& weights, const std::vector<double>& values,
                                Index tokens) {
  const Index width = static_cast<Index>(values.size()) / tokens;
  std::vector<double> output(values.size());
  for (Index i = 0; i < tokens; ++i)
    for (Index j = 0; j < tokens; ++j) {
      const double w = weights[static_cast<std::size_t>(i * tokens + j)];
      if (w == 0) continue;
      for (Index c = 0; c < width; ++c)
        output[static_cast<std::size_t>(i * width + c)] +=
            w * values[static_cast<std::size_t>(j * width + c)];
    }
  return output;
}

// The residual stream where it enters the first block and where it leaves each: node and name.
std::vector<std::pair<std::string, std::string>> block_streams(const Graph& graph) {
  const auto name_of = [&](int n) { return graph.nodes[static_cast<std::size_t>(n)].name; };
  std::vector<std::pair<std::string, std::string>> streams;
  for (const Group& group : graph.groups) {
    if (std::count(group.name.begin(), group.name.end(), '.') != 1) continue;  // a step inside a block
    if (streams.empty()) streams.emplace_back(name_of(group.residual), "before");
    streams.emplace_back(name_of(group.output), group.name);
  }
  return streams;
}

// Rows of the streams and of every gate, in one run.
Recording record_text(const Reading& reading, const Common& common) {
  const Model& model = *reading.model;
  RecordRequest request;
  request.rows = true;
  request.inner_rows = {Site::gate};
  for (const auto& [node, name] : block_streams(model.graph())) request.nodes.push_back(node);
  for (int n = 0; n < model.node_count(); ++n) {
    const auto sites = model.layer(n).sites();
    if (std::any_of(sites.begin(), sites.end(), [](const SiteSpec& s) { return s.site == Site::gate; }))
      request.nodes.push_back(model.graph().nodes[static_cast<std::size_t>(n)].name);
  }
  if (request.nodes.empty()) return {};
  return record(model, std::vector<std::vector<Token>>{reading.tokens}, request,
                common.compute(Numerics::exact));
}

}  // namespace

double frobenius_norm(std::span<const double> weights) {
  double squares = 0;
  for (const double w : weights) squares += w * w;
  return std::sqrt(squares);
}

double pairwise_cosine_distance(std::span<const float> rows, Index count) {
  const std::size_t width = rows.size() / static_cast<std::size_t>(count);
  std::vector<double> sum(width);  // of unit rows: |sum|^2 = n + twice the cosines of all pairs
  double n = 0;
  for (Index r = 0; r < count; ++r) {
    const auto row = rows.subspan(static_cast<std::size_t>(r) * width, width);
    double square = 0;
    for (const double x : row) square += x * x;
    if (square == 0) continue;
    for (std::size_t c = 0; c < width; ++c) sum[c] += static_cast<double>(row[c]) / std::sqrt(square);
    ++n;
  }
  if (n < 2) return 0;
  double square = 0;
  for (const double x : sum) square += x * x;
  return 1 - (square - n) / (n * (n - 1));
}

GateStatistics gate_statistics(std::span<const float> factors) {
  GateStatistics s;
  for (const double f : factors) {
    s.mean += f;
    s.closed += f < kClosed;
    s.open += f > kOpen;
  }
  const auto n = static_cast<double>(factors.size());
  return {s.mean / n, s.closed / n, s.open / n};
}

void AttentionStatistics::add_flags(CLI::App& verb) { add_reading_flags(verb, flags_); }

Findings AttentionStatistics::run(const Common& common) const {
  const Reading reading = read_attention(flags_, common);
  Findings found;
  found.json = reading.json();
  add_heads(reading, common, found);
  const Recording recording = record_text(reading, common);
  add_blocks(reading, recording, found);
  add_gates(reading, recording, found);
  return found;
}

void AttentionStatistics::add_heads(const Reading& reading, const Common& common, Findings& found) const {
  const Index tokens = reading.length();
  std::vector<std::vector<std::string>> rows = {{"LAYER", "HEAD", "ENTROPY", "FROBENIUS", "STABLE RANK"}};
  plot::ScatterChart chart;
  chart.caption = {"", "Heads", "One mark per head: norm of its weights and stable rank of its output."};
  chart.title = "How sharply heads choose, and how varied what they put out is";
  chart.x_label = "Frobenius norm of the weights";
  chart.y_label = "stable rank of the output";
  chart.guide = plot::ScatterChart::Guide::none;
  Progress progress(common, "reading heads");
  for (std::size_t n = 0; n < reading.nodes.size(); ++n) {
    const AttentionNode& node = reading.nodes[n];
    for (const Index head : node.heads) {
      const std::vector<double> weights = weights_of(node, head, tokens);
      const double entropy = map_statistics(weights, tokens, reading.first_row()).entropy,
                   norm = frobenius_norm(weights),
                   rank = stable_rank(head_output(weights, values_of(node, head, tokens), tokens), tokens);
      rows.push_back({node.name, cat(head), fixed(entropy, 3), fixed(norm, 3), fixed(rank, 2)});
      found.json["heads"].push_back({{"layer", node.name},
                                     {"head", head},
                                     {"entropy", entropy},
                                     {"frobenius_norm", norm},
                                     {"stable_rank", rank}});
      chart.points.push_back({norm, rank, "", false, static_cast<int>(n),
                              cat(node.name, ", head ", head, ": entropy ", fixed(entropy, 2))});
    }
    progress.update(static_cast<double>(n + 1) / static_cast<double>(reading.nodes.size()));
  }
  progress.clear();
  const double most = std::sqrt(static_cast<double>(tokens));
  found.json["frobenius_bound"] = most;
  found.text = cat(table(rows, "lrrrr"), "Entropy in nats. Norms are at most sqrt ", tokens, " = ",
                   fixed(most, 1), " where rows of weights sum to 1.\n");
  found.figures.push_back(
      figure_of(std::move(chart),
                "A colour and shape per layer, in the order of the table. Far right: rows that choose "
                "one key; low: a head whose output is much the same for all tokens."));
}

void AttentionStatistics::add_blocks(const Reading& reading, const Recording& recording,
                                     Findings& found) const {
  const auto streams = block_streams(reading.model->graph());
  if (streams.empty()) return;  // a card with a graph of its own need not have blocks
  std::vector<std::vector<std::string>> rows = {{"STREAM", "TOKEN DISTANCE"}};
  plot::LineChart chart;
  chart.caption = {"", "Token distance", "Mean pairwise cosine distance of the tokens, by depth."};
  chart.x_label = "blocks behind";
  chart.unit = "mean pairwise cosine distance";
  chart.panels = {{"How far apart tokens are in the residual stream", {{"", 0, {}}}}};
  for (const auto& [node, name] : streams) {
    const double distance = pairwise_cosine_distance(recording.nodes.at(node)->rows, reading.length());
    rows.push_back({name, fixed(distance, 4)});
    found.json["blocks"].push_back({{"stream", name}, {"token_distance", distance}});
    auto& points = chart.panels[0].series[0].points;
    points.push_back(plot::LineChart::Point::plain(static_cast<double>(points.size()), distance, 0,
                                                   cat(name, ": ", fixed(distance, 3))));
  }
  found.text += cat("\n", table(rows, "lr"),
                    "Mean over pairs of tokens of 1 - cosine, before the first block "
                    "and behind each.\n");
  found.figures.push_back(figure_of(
      std::move(chart), "A fall towards 0 is oversmoothing: tokens become one another's likeness."));
}

void AttentionStatistics::add_gates(const Reading& reading, const Recording& recording,
                                    Findings& found) const {
  std::vector<std::vector<std::string>> rows = {{"LAYER", "KIND", "MEAN GATE", "BELOW 0.1", "ABOVE 0.9"}};
  plot::LineChart chart;
  chart.caption = {"", "Gates", "Mean factor of each gate, and the shares that are shut and open."};
  chart.x_label = "layers with a gate, in the order of the table";
  chart.unit = "factor, or share of factors";
  chart.panels = {{"How far gates are open", {{"mean", 0, {}}, {"below 0.1", 1, {}}, {"above 0.9", 2, {}}}}};
  const auto& nodes = reading.model->graph().nodes;
  for (const Node& node : nodes) {
    const auto recorded = recording.nodes.find(node.name);
    if (recorded == recording.nodes.end()) continue;
    const auto gate = recorded->second->inner_rows.find(Site::gate);
    if (gate == recorded->second->inner_rows.end()) continue;
    const GateStatistics s = gate_statistics(gate->second);
    const double values[] = {s.mean, s.closed, s.open};
    for (int i = 0; i < 3; ++i)
      chart.panels[0].series[static_cast<std::size_t>(i)].points.push_back(plot::LineChart::Point::plain(
          static_cast<double>(rows.size()), values[i], i, cat(node.name, ": ", fixed(values[i], 3))));
    rows.push_back({node.name, node.kind, fixed(s.mean, 3), fixed(s.closed, 4), fixed(s.open, 4)});
    found.json["gates"].push_back({{"layer", node.name},
                                   {"kind", node.kind},
                                   {"mean", s.mean},
                                   {"below_0.1", s.closed},
                                   {"above_0.9", s.open}});
  }
  if (rows.size() == 1) return;
  found.text +=
      cat("\n", table(rows, "llrrr"), "Factors of every gate on its layer's heads, over all rows.\n");
  found.figures.push_back(
      figure_of(std::move(chart), "Factors of sigmoid gates lie between 0 and 1, those of others need not."));
}

}  // namespace plait::probe
