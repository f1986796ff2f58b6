#include "tools/probe/large_prompt_limit.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <numeric>

#include "runtime/base/error.h"
#include "tools/plot/chart.h"
#include "tools/plot/line_colour.h"
#include "tools/within.h"

namespace plait::probe {
namespace {

constexpr Index kSkip = 16;  // rows of a causal map whose keys are too few to have a mean

}  // namespace

PromptError prompt_error(const GaussianPrompt& prompt, Index length, const Sampling& sampling) {
  const std::unique_ptr<NormaliserTwin> softmax = make_twin(NormaliserOption(Softmax{}), Parameters{});
  const std::size_t width = prompt.variances.size();
  TwinRow row;
  row.keys.resize(static_cast<std::size_t>(length));
  std::iota(row.keys.begin(), row.keys.end(), Index{0});
  const auto estimates = average(sampling, 2, [&](Source& source, double* values) {
    std::vector<double> x, logits;
    for (Index l = 0; l < length; ++l) {
      double s = 0;
      for (std::size_t c = 0; c < width; ++c)
        s += prompt.logit[c] * x.emplace_back(std::sqrt(prompt.variances[c]) * source.normal());
      logits.push_back(s);
    }
    const std::vector<double> w = softmax->weights(row, logits);
    double square = 0;
    for (std::size_t c = 0; c < width; ++c) {
      double off = -prompt.variances[c] * prompt.logit[c];
      for (std::size_t l = 0; l < w.size(); ++l) off += w[l] * x[l * width + c];
      square += off * off;
    }
    values[0] = std::sqrt(square);
    values[1] = square;
  });
  return {estimates[0], estimates[1]};
}

double limit_square(const GaussianPrompt& prompt) {
  double exponent = 0, trace = 0, quadratic = 0;
  for (std::size_t c = 0; c < prompt.variances.size(); ++c) {
    const double v = prompt.variances[c], a = prompt.logit[c];
    exponent += v * a * a;
    trace += v;
    quadratic += v * v * a * a;
  }
  return std::exp(exponent) * (trace + quadratic);
}

SurrogateRow surrogate_row(const std::vector<double>& weights, const std::vector<double>& logits,
                           const std::vector<const double*>& values, Index width) {
  double n = 0, sum = 0;
  for (const double s : logits)
    if (!std::isinf(s)) ++n, sum += s;
  const double mean_logit = sum / n;
  const std::vector<double> zeros(static_cast<std::size_t>(width));
  SurrogateRow row{zeros, zeros, zeros};
  for (std::size_t j = 0; j < weights.size(); ++j) {
    if (std::isinf(logits[j])) continue;
    for (std::size_t c = 0; c < zeros.size(); ++c) {
      row.output[c] += weights[j] * values[j][c];
      row.mean[c] += values[j][c] / n;
      row.surrogate[c] += (1 + logits[j] - mean_logit) * values[j][c] / n;
    }
  }
  return row;
}

void LargePromptLimit::add_flags(CLI::App& verb) {
  add_reading_flags(verb, reading_);
  verb.get_option_group("input")->require_option(0, 1);  // without a text: normal tokens
  verb.add_option("--skip", skip_, "With a text: leave out the first N rows (default 16; 0 for an encoder)")
      ->check(CLI::Range(Index{0}, Index{1} << 16))
      ->type_name("N");
  verb.add_option("--variances", variances_, "Of the tokens' coordinates (default 1,1,1,1)")
      ->delimiter(',')
      ->check(within(1e-6, 1e6));
  verb.add_option("--norm", norm_, "Length of a, whose direction is random (default 0.81)")
      ->check(within(0, 10));
  verb.add_option("-n,--lengths", lengths_, "Tokens L (default 100,1000,10000,100000)")
      ->delimiter(',')
      ->check(CLI::Range(Index{1}, Index{1} << 26));
  verb.add_option("--draws", draws_, "Prompts per length (default 64)")
      ->check(CLI::Range(Index{2}, Index{1} << 24));
}

Findings LargePromptLimit::run(const Common& common) const {
  if (!reading_.text.empty() || !reading_.tokens.empty()) return of_model(common);
  if (!reading_.model.empty())
    throw UsageError("large_prompt_limit reads a model on a text: --text or --tokens is missing");
  return of_gaussian(common);
}

Findings LargePromptLimit::of_gaussian(const Common& common) const {
  GaussianPrompt prompt{variances_, {}};
  Source source(sampling_of(common, 1, 0).seed, 0);
  double square = 0;
  for (std::size_t c = 0; c < variances_.size(); ++c) {
    const double x = prompt.logit.emplace_back(source.normal());
    square += x * x;
  }
  for (double& x : prompt.logit) x *= norm_ / std::sqrt(square);

  Findings found;
  const double limit = std::sqrt(limit_square(prompt));
  if (!std::isfinite(limit))
    throw UsageError(
        "large_prompt_limit: a limit that grows with e^(a.Sigma a) is beyond any number here; "
        "--variances or --norm must be smaller");
  found.json = {{"variances", variances_}, {"a", prompt.logit}, {"draws", draws_}, {"limit", limit}};
  std::vector<std::vector<std::string>> rows = {{"L", "ERROR", "ROOT MEAN SQUARE", "TIMES SQRT L"}};
  plot::LineChart chart;
  chart.caption = {"", "Error of the limit",
                   "Distance of the attention output from its limit by prompt length."};
  chart.x_label = "tokens L";
  chart.unit = "root mean square error";
  chart.axis = plot::LineChart::Axis::tenfold;
  chart.scale = plot::LineChart::Scale::tenfold;
  chart.panels = {
      {cat(variances_.size(), " dimensions, |a| = ", norm_), {{"measured", 0, {}}, {"derived", 1, {}}}}};
  double work = 0, done = 0;
  for (const Index n : lengths_) work += static_cast<double>(n);
  Progress progress(common, "prompts");
  for (std::size_t i = 0; i < lengths_.size(); ++i) {
    const double n = static_cast<double>(lengths_[i]);
    Sampling sampling = sampling_of(common, i + 2, draws_);
    sampling.progress = [&](double fraction) { progress.update((done + fraction * n) / work); };
    const PromptError error = prompt_error(prompt, lengths_[i], sampling);
    done += n;
    const double root = std::sqrt(error.square.mean()), half = 1.96 * error.square.error() / (2 * root);
    rows.push_back({cat(lengths_[i]), with_error(error.norm), fixed(root, 5), fixed(root * std::sqrt(n), 3)});
    found.json["lengths"].push_back({{"length", lengths_[i]},
                                     {"error", json_of(error.norm)},
                                     {"root_mean_square", root},
                                     {"times_root_length", root * std::sqrt(n)}});
    auto& series = chart.panels[0].series;
    series[0].points.push_back(
        {n, {root, root - half, root + half}, plot::Certainty::clear, 0, cat("L ", lengths_[i])});
    series[1].points.push_back(
        {n, {limit / std::sqrt(n)}, plot::Certainty::clear, 1, cat("L ", lengths_[i])});
  }
  found.text = cat(table(rows, "rrrr"),
                   "Derived for long prompts: root mean square times sqrt L = ", fixed(limit, 3), ".\n");
  found.figures.push_back(figure_of(
      std::move(chart), "Softmax over L normal tokens nears a linear read of their mean and covariance."));
  return found;
}

Findings LargePromptLimit::of_model(const Common& common) const {
  const Reading reading = read_attention(reading_, common);
  const Index skip = skip_.value_or(reading.causal() ? kSkip : 0);
  if (skip >= reading.length()) fail("--skip ", skip, " leaves no row of ", reading.length(), " tokens");
  Findings found;
  found.json = reading.json();
  std::vector<std::vector<std::string>> rows = {{"LAYER", "HEAD", "GAP", "GAP OF THE MEAN", "SHARE LEFT"}};
  plot::LineChart chart;
  chart.caption = {"", "Heads and their linear surrogates",
                   "Share of a head's departure from the mean that is left."};
  chart.x_label = "head";
  chart.unit = "share left by the linear surrogate";
  chart.panels = {{"what a linear read leaves of each head", {}}};
  Progress progress(common, "heads");
  double done = 0;
  for (const AttentionNode& node : reading.nodes) {
    const auto* softmax = std::get_if<Softmax>(&node.settings.normaliser);
    if (!softmax || softmax->sink != Softmax::Sink::none)
      fail("node '", node.name, "' has another normaliser than plain softmax, of which no limit is known");
    auto& series = chart.panels[0].series;
    series.push_back({node.name, plot::line_colour(series.size()), {}});
    for (const Index head : node.heads) {
      double gap = 0, spread = 0, size = 0;
      for (Index i = skip; i < reading.length(); ++i) {
        const AttentionTwin::Look look = node.sequence->look(i, head);
        if (look.weights.empty()) continue;
        const SurrogateRow row = surrogate_row(look.weights, look.logits, look.row.values,
                                               node.settings.projection.value_head_dim);
        for (std::size_t c = 0; c < row.output.size(); ++c) {
          gap += (row.output[c] - row.surrogate[c]) * (row.output[c] - row.surrogate[c]);
          spread += (row.output[c] - row.mean[c]) * (row.output[c] - row.mean[c]);
          size += row.output[c] * row.output[c];
        }
      }
      const double of_output = size > 0 ? std::sqrt(gap / size) : 0,
                   of_mean = size > 0 ? std::sqrt(spread / size) : 0;
      const double left = spread > 0 ? gap / spread : 0;
      rows.push_back({node.name, cat(head), fixed(of_output, 4), fixed(of_mean, 4), fixed(left, 4)});
      found.json["heads"].push_back({{"layer", node.name},
                                     {"head", head},
                                     {"gap", of_output},
                                     {"gap_of_mean", of_mean},
                                     {"share_left", left}});
      series.back().points.push_back({static_cast<double>(head),
                                      {left},
                                      plot::Certainty::clear,
                                      series.back().colour,
                                      cat(node.name, ", head ", head)});
    }
    progress.update(++done / static_cast<double>(reading.nodes.size()));
  }
  found.text =
      cat(table(rows, "lrrrr"), "Gap: |output - surrogate| over |output|, root mean squares over rows ", skip,
          " to ", reading.length() - 1,
          "; of the mean: the same for the mean value alone.\nShare left: the square of the first over that "
          "of the second.\n");
  found.figures.push_back(figure_of(
      std::move(chart), "How much of what a head does beyond averaging its values a linear read leaves."));
  return found;
}

}  // namespace plait::probe
