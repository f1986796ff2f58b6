#include "tools/probe/attention_sinks.h"

#include <CLI/CLI.hpp>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/plot/chart.h"
#include "tools/within.h"

namespace plait::probe {
namespace {

constexpr Index kSkip = 8;  // rows of a causal map that see few keys
constexpr double kRouted = 0.9, kSmall = 0.2, kLarge = 0.5, kRankOne = 1.5;

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Eigen::Map<const Rows> matrix(const std::vector<double>& rows, Index count) {
  return {rows.data(), count, static_cast<Index>(rows.size()) / count};
}

// |row s| over the mean of the other rows' norms.
double ratio(const std::vector<double>& rows, Index count, Index s) {
  const Eigen::VectorXd norms = matrix(rows, count).rowwise().norm();
  const double others = (norms.sum() - norms[s]) / static_cast<double>(count - 1);
  return others > 0 ? norms[s] / others : 0;
}

// The first row that a key is judged by.
Index first_judge(Index key, Index skip, bool causal) { return causal ? std::max(key, skip) : skip; }

Index strongest_key(Eigen::Map<const Rows> a, Index skip, bool causal) {
  Index best = 0;
  double most = -1;
  for (Index j = 0; j <= (a.rows() - 1) / (causal ? 2 : 1); ++j) {
    const Index first = first_judge(j, skip, causal);
    const double mean = a.col(j).tail(a.rows() - first).mean();
    if (mean > most) best = j, most = mean;
  }
  return best;
}

// What a head reads of a text: weights, values, and values behind the head's rows of the output projection.
struct HeadReading {
  std::vector<double> weights, values, outputs;
};

HeadReading read_head(const Reading& reading, const AttentionNode& node, Index head) {
  const ProjectionSettings& p = node.settings.projection;
  const Index tokens = reading.length(), dv = p.value_head_dim;
  HeadReading read{weights_of(node, head, tokens), values_of(node, head, tokens), {}};
  const std::vector<double> o = to_double(reading.model->parameters(node.node).tensor("o"));
  const auto own = matrix(o, p.width).middleCols(head * dv, dv);
  read.outputs.resize(static_cast<std::size_t>(tokens * p.width));
  Eigen::Map<Rows>(read.outputs.data(), tokens, p.width) = matrix(read.values, tokens) * own.transpose();
  return read;
}

// The least of `eps` whose strict event this is.
std::optional<double> strictest(const SinkStatistics& s, const std::vector<double>& eps) {
  std::optional<double> least;
  for (const double e : eps)
    if (strict_sink(s, e) && (!least || e < *least)) least = e;
  return least;
}

std::vector<double> tail(const std::vector<float>& rows, Index count, Index skip) {
  const Index width = static_cast<Index>(rows.size()) / count;
  return {rows.begin() + skip * width, rows.end()};
}

}  // namespace

const char* name_of(SinkKind kind) {
  switch (kind) {
    case SinkKind::nop:
      return "NOP";
    case SinkKind::broadcast:
      return "broadcast";
    case SinkKind::other:
      return "sink";
    default:
      return "-";
  }
}

double stable_rank(const std::vector<double>& rows, Index count) {
  const auto u = matrix(rows, count);
  // U U' and U' U have the same eigenvalues but for zeros.
  Eigen::MatrixXd gram;
  if (u.rows() < u.cols())
    gram = u * u.transpose();
  else
    gram = u.transpose() * u;
  const double largest =
      Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(gram, Eigen::EigenvaluesOnly).eigenvalues().maxCoeff();
  return largest > 0 ? gram.trace() / largest : 0;
}

double shared_energy(const std::vector<double>& rows, Index count) {
  const auto d = matrix(rows, count);
  const double all = d.squaredNorm();
  return all > 0 ? static_cast<double>(count) * d.colwise().mean().squaredNorm() / all : 0;
}

SinkStatistics sink_statistics(const std::vector<double>& weights, const std::vector<double>& values,
                               const std::vector<double>& outputs, Index tokens, Index skip, bool causal) {
  const auto a = matrix(weights, tokens);
  SinkStatistics s;
  s.sink = strongest_key(a, skip, causal);
  const Index rows = tokens - first_judge(s.sink, skip, causal);
  const Eigen::VectorXd column = a.col(s.sink).tail(rows);
  s.mass = column.mean();
  s.least = column.minCoeff();
  s.routed = static_cast<double>((column.array() >= 0.5).count()) / static_cast<double>(rows);
  s.ratio_head = ratio(values, tokens, s.sink);
  s.ratio_out = ratio(outputs, tokens, s.sink);
  const Rows u = a.bottomRows(rows) * matrix(outputs, tokens);
  s.stable_rank = stable_rank({u.data(), u.data() + u.size()}, rows);
  return s;
}

SinkKind sink_kind(const SinkStatistics& s) {
  if (s.routed < kRouted) return SinkKind::none;
  if (s.ratio_out <= kSmall) return SinkKind::nop;
  return s.ratio_out >= kLarge && s.stable_rank <= kRankOne ? SinkKind::broadcast : SinkKind::other;
}

bool strict_sink(const SinkStatistics& s, double eps) { return s.least >= 1 - eps; }

SinkCounts count_sinks(std::span<const SinkStatistics> heads, std::optional<double> eps) {
  SinkCounts counts;
  for (const SinkStatistics& s : heads) {
    if (eps ? !strict_sink(s, *eps) : s.routed < kRouted) continue;
    ++counts.sinks;
    counts.nops += s.ratio_head <= kSmall;
    counts.broadcasts += s.ratio_head >= kLarge;
  }
  return counts;
}

void AttentionSinks::add_flags(CLI::App& verb) {
  add_reading_flags(verb, flags_);
  verb.add_option("--skip", skip_, "Leave out the first N rows (default 8; 0 for an encoder)")
      ->check(CLI::Range(Index{0}, Index{1} << 16))
      ->type_name("N");
  verb.add_option("--eps", eps_,
                  "A strict sink has no weight below 1 - eps; the tables' (default 0.5,0.3,0.2,0.1)")
      ->delimiter(',')
      ->check(within(0, 0.5));
}

Findings AttentionSinks::run(const Common& common) const {
  const Reading reading = read_attention(flags_, common);
  const Index tokens = reading.length(), skip = skip_.value_or(reading.causal() ? kSkip : 0);
  if (tokens <= 2 * skip)
    fail("'", reading.source, "' has ", tokens, " tokens; sinks are sought behind --skip ", skip,
         " rows, in twice as many at least");
  for (const AttentionNode& node : reading.nodes)
    if (node.settings.heads_out() != node.settings.projection.num_heads)
      fail(node.name,
           ": its readout combines query heads, so that a head has no rows of the output projection");

  Findings found;
  found.json = reading.json();
  found.json["skip"] = skip;
  found.json["eps"] = eps_;
  std::vector<std::vector<std::string>> rows = {{"LAYER", "HEAD", "SINK", "MASS", "ROUTED", "LEAST",
                                                 "RATIO HEAD", "RATIO OUT", "STABLE RANK", "VERDICT",
                                                 "STRICT"}},
                                        layers = {{"LAYER", "SHARED ENERGY", "RELAXED"}};
  for (const double eps : eps_) layers[0].push_back(cat("EPS ", eps));
  plot::ScatterChart chart;
  chart.caption = {"", "Sinks", "One mark per head: mass on its strongest key, and that key's output."};
  chart.title = "Mass on the strongest key, and how large its output is";
  chart.x_label = "mean weight of the strongest key";
  chart.y_label = "its output over the other keys' mean output";
  chart.guide = plot::ScatterChart::Guide::none;
  Progress progress(common, "reading heads");
  for (std::size_t n = 0; n < reading.nodes.size(); ++n) {
    const AttentionNode& node = reading.nodes[n];
    std::vector<SinkStatistics> heads;
    for (const Index head : node.heads) {
      const HeadReading read = read_head(reading, node, head);
      const SinkStatistics s =
          sink_statistics(read.weights, read.values, read.outputs, tokens, skip, reading.causal());
      const SinkKind kind = sink_kind(s);
      const std::optional<double> strict = strictest(s, eps_);
      heads.push_back(s);
      const std::string where = cat(node.name, ", head ", head);
      rows.push_back({node.name, cat(head), cat(s.sink), fixed(s.mass, 4), fixed(s.routed, 3),
                      fixed(s.least, 4), fixed(s.ratio_head, 3), fixed(s.ratio_out, 3),
                      fixed(s.stable_rank, 2), name_of(kind), strict ? cat(*strict) : "-"});
      found.json["heads"].push_back({{"layer", node.name},
                                     {"head", head},
                                     {"sink", s.sink},
                                     {"token", reading.tokens[static_cast<std::size_t>(s.sink)]},
                                     {"mass", s.mass},
                                     {"routed", s.routed},
                                     {"least", s.least},
                                     {"ratio_head", s.ratio_head},
                                     {"ratio_out", s.ratio_out},
                                     {"stable_rank", s.stable_rank},
                                     {"verdict", name_of(kind)},
                                     {"strict_eps", strict ? Json(*strict) : Json()}});
      chart.points.push_back(
          {s.mass, s.ratio_out, where, kind != SinkKind::none, static_cast<int>(n),
           cat(where, ": key ", s.sink, ", mass ", fixed(s.mass, 3), ", ", name_of(kind))});
    }
    const double shared = shared_energy(tail(node.output, tokens, skip), tokens - skip);
    layers.push_back({node.name, fixed(shared, 4)});
    Json counts = Json::array();
    const auto count = [&](std::optional<double> eps) {
      const SinkCounts c = count_sinks(heads, eps);
      layers.back().push_back(cat(c.sinks, " ", c.nops, "/", c.broadcasts));
      counts.push_back({{"eps", eps ? Json(*eps) : Json()},
                        {"sinks", c.sinks},
                        {"nop", c.nops},
                        {"broadcast", c.broadcasts}});
    };
    count(std::nullopt);
    for (const double eps : eps_) count(eps);
    found.json["layers"].push_back(
        {{"layer", node.name}, {"heads", heads.size()}, {"shared_energy", shared}, {"counts", counts}});
    progress.update(static_cast<double>(n + 1) / static_cast<double>(reading.nodes.size()));
  }
  progress.clear();
  found.text =
      cat(table(rows, "lrrrrrrrrlr"), "\n", table(layers, "l" + std::string(layers[0].size() - 1, 'r')),
          "Rows from ", skip, " on; a sink event is routed >= ", fixed(kRouted, 1),
          ", a NOP has ratio out <= ", fixed(kSmall, 1), ", a broadcast ratio out >= ", fixed(kLarge, 1),
          " and stable rank <= ", fixed(kRankOne, 1), ".\nStrict: the least eps with least >= 1 - eps. ",
          "Layers: sink events NOPs/broadcasts, by ratio head and without the rank.\n");
  found.figures.push_back(
      figure_of(std::move(chart),
                "A colour and shape per layer, in the order of the table; filled marks are sink events. Low "
                "on the right: a head that does nothing there (NOP); high "
                "on the right: one that gives every token the same."));
  return found;
}

}  // namespace plait::probe
