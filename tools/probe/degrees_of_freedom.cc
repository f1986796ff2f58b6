#include "tools/probe/degrees_of_freedom.h"

#include <CLI/CLI.hpp>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/base/error.h"
#include "runtime/base/noise.h"
#include "tools/plot/chart.h"
#include "tools/plot/line_colour.h"
#include "tools/within.h"

namespace plait::probe {

std::vector<double> gram_eigenvalues(const std::vector<double>& vectors, Index count, double scale) {
  const Index width = static_cast<Index>(vectors.size()) / count;
  Eigen::MatrixXd gram(count, count);
  for (Index a = 0; a < count; ++a)
    for (Index b = 0; b <= a; ++b) {
      double dot = 0;
      for (Index c = 0; c < width; ++c)
        dot += vectors[static_cast<std::size_t>(a * width + c)] *
               vectors[static_cast<std::size_t>(b * width + c)];
      gram(a, b) = gram(b, a) = std::exp(scale * dot);
    }
  if (!gram.allFinite()) fail("exp(q.k scale) of these queries and keys is beyond double precision");
  const Eigen::VectorXd values =
      Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(gram, Eigen::EigenvaluesOnly).eigenvalues();
  return {values.data(), values.data() + values.size()};
}

double degrees_of_freedom(const std::vector<double>& eigenvalues, double lambda) {
  double sum = 0;
  // A Gram matrix has no negative eigenvalue but by rounding.
  for (const double mu : eigenvalues) sum += std::max(mu, 0.0) / (std::max(mu, 0.0) + lambda);
  return sum;
}

std::vector<Index> feature_counts(const std::vector<double>& dof, double average) {
  double mean = 0;
  for (const double x : dof) mean += x / static_cast<double>(dof.size());
  std::vector<Index> counts;
  for (const double x : dof) counts.push_back(std::max<Index>(1, std::lround(average * x / mean)));
  return counts;
}

void DegreesOfFreedom::add_flags(CLI::App& verb) {
  add_reading_flags(verb, reading_);
  verb.get_option_group("input")->require_option(0, 1);  // without a text: normal vectors
  verb.add_option("--samples", samples_, "Vectors J per head (default 256)")
      ->check(CLI::Range(Index{2}, Index{1} << 13));
  verb.add_option("--lambda", lambda_, "The ridge (default 2^-4)")->check(within(1e-12, 1e12));
  verb.add_option("--features", average_, "Features C per layer on average (default 64)")
      ->check(within(1, 1e6));
  verb.add_option("--gram-scale", gram_scale_,
                  "Factor on the Gram matrix: one (default) or inverse (1 / J); UNCONFIRMED")
      ->check(CLI::IsMember({"one", "inverse"}));
  verb.add_option("--dim", dim_, "Without a text: width of normal vectors (default 16)")
      ->check(CLI::Range(Index{1}, Index{1} << 14));
  verb.add_option("--deviation", deviation_, "Without a text: their standard deviation (default 0.5)")
      ->check(within(1e-6, 1e6));
}

std::vector<DegreesOfFreedom::Spectrum> DegreesOfFreedom::of_gaussian(const Common& common) const {
  Source source(sampling_of(common, 1, 0).seed, 0);
  std::vector<double> vectors(static_cast<std::size_t>(samples_ * dim_));
  for (double& x : vectors) x = deviation_ * source.normal();
  return {
      {"normal vectors", 0, gram_eigenvalues(vectors, samples_, 1 / std::sqrt(static_cast<double>(dim_)))}};
}

std::vector<DegreesOfFreedom::Spectrum> DegreesOfFreedom::of_model(const Common& common, Json& json) const {
  const Reading reading = read_attention(reading_, common);
  json = reading.json();
  const Index pool = 2 * reading.length();
  if (pool < samples_)
    fail("--samples ", samples_, ": ", reading.length(), " tokens have ", pool, " queries and keys");
  std::vector<Spectrum> all;
  Progress progress(common, "heads");
  double done = 0;
  for (const AttentionNode& node : reading.nodes) {
    const ScoreOption& first = node.settings.score.front();
    if (!std::holds_alternative<Softmax>(node.settings.normaliser) ||
        !(std::holds_alternative<ScaledDot>(first) || std::holds_alternative<IntegralAttention>(first)))
      fail(node.name,
           ": degrees of freedom are those of the kernel e^(scale q.k), which its normaliser or first "
           "score does not have");
    const double scale = scale_of(first);
    const Index width = node.settings.projection.head_dim;
    for (const Index head : node.heads) {
      // Numbers below the length are queries, the others keys; a partial shuffle draws them.
      std::vector<Index> numbers(static_cast<std::size_t>(pool));
      for (Index i = 0; i < pool; ++i) numbers[static_cast<std::size_t>(i)] = i;
      Source source(sampling_of(common, 2, 0).seed,
                    noise_key({static_cast<std::uint64_t>(node.node), static_cast<std::uint64_t>(head)}));
      std::vector<double> vectors;
      for (Index i = 0; i < samples_; ++i) {
        std::swap(numbers[static_cast<std::size_t>(i)],
                  numbers[static_cast<std::size_t>(i + source.below(pool - i))]);
        const Index number = numbers[static_cast<std::size_t>(i)], token = number % reading.length();
        const AttentionTwin::Look look = node.sequence->look(token, head);
        const double* vector =
            number < reading.length() ? look.row.query : look.row.vectors[own_place(look.row)];
        vectors.insert(vectors.end(), vector, vector + width);
      }
      all.push_back({node.name, head, gram_eigenvalues(vectors, samples_, scale)});
    }
    progress.update(++done / static_cast<double>(reading.nodes.size()));
  }
  return all;
}

// Powers of two from below the least eigenvalue to above the greatest, at most 33 and 2^40 apart: where
// degrees of freedom go from all vectors to none.
std::vector<double> DegreesOfFreedom::shown_ridges(const std::vector<Spectrum>& spectra) {
  double low = HUGE_VAL, high = 0;
  for (const Spectrum& s : spectra) {
    high = std::max(high, s.eigenvalues.back());
    for (const double mu : s.eigenvalues)
      if (mu > 0) low = std::min(low, mu);
  }
  const int last = static_cast<int>(std::ceil(std::log2(high))) + 2;
  const int first = std::max(static_cast<int>(std::floor(std::log2(low))) - 2, last - 40);
  const int step = (last - first + 31) / 32;
  std::vector<double> ridges;
  for (int power = first; power <= last; power += step) ridges.push_back(std::exp2(power));
  return ridges;
}

Findings DegreesOfFreedom::run(const Common& common) const {
  const bool model = !reading_.text.empty() || !reading_.tokens.empty();
  if (!model && !reading_.model.empty())
    throw UsageError("degrees_of_freedom reads a model on a text: --text or --tokens is missing");
  Findings found;
  std::vector<Spectrum> spectra = model ? of_model(common, found.json) : of_gaussian(common);
  if (gram_scale_ == "inverse")
    for (Spectrum& s : spectra)
      for (double& mu : s.eigenvalues) mu /= static_cast<double>(samples_);
  found.json["lambda"] = lambda_;
  found.json["samples"] = samples_;
  found.json["gram_scale"] = gram_scale_;

  std::vector<std::string> layers;
  std::vector<double> largest;  // of each layer
  std::vector<std::vector<std::string>> rows = {{"LAYER", "HEAD", "DOF"}};
  plot::LineChart chart;
  chart.caption = {"", "Degrees of freedom", "Degrees of freedom by ridge, the largest head of each layer."};
  chart.x_label = "lambda";
  chart.unit = "degrees of freedom";
  chart.axis = plot::LineChart::Axis::doubling;
  chart.panels = {{cat(samples_, " vectors per head"), {}}};
  auto& series = chart.panels[0].series;
  const std::vector<double> ridges = shown_ridges(spectra);
  for (const Spectrum& s : spectra) {
    const double dof = degrees_of_freedom(s.eigenvalues, lambda_);
    rows.push_back({s.layer, cat(s.head), fixed(dof, 2)});
    found.json["heads"].push_back({{"layer", s.layer}, {"head", s.head}, {"dof", dof}});
    if (layers.empty() || layers.back() != s.layer) {
      layers.push_back(s.layer);
      largest.push_back(0);
      series.push_back({s.layer, plot::line_colour(series.size()), {}});
      for (const double lambda : ridges)
        series.back().points.push_back(
            {lambda, {0}, plot::Certainty::clear, series.back().colour, cat(s.layer, ", lambda ", lambda)});
    }
    largest.back() = std::max(largest.back(), dof);
    for (auto& point : series.back().points)
      point.effect.value = std::max(point.effect.value, degrees_of_freedom(s.eigenvalues, point.x));
  }
  const std::vector<Index> counts = feature_counts(largest, average_);
  std::vector<std::vector<std::string>> chosen = {{"LAYER", "DOF", "FEATURES"}};
  for (std::size_t l = 0; l < layers.size(); ++l) {
    chosen.push_back({layers[l], fixed(largest[l], 2), cat(counts[l])});
    found.json["layers"].push_back({{"layer", layers[l]}, {"dof", largest[l]}, {"features", counts[l]}});
  }
  found.text = table(rows, "lrr");
  if (model)
    found.text += cat("\n", table(chosen, "lrr"), "Features: ", average_,
                      " per layer on average, shared out by the largest head of each layer.\n");
  if (*std::min_element(largest.begin(), largest.end()) > 0.99 * static_cast<double>(samples_))
    found.text +=
        cat("The ridge ", lambda_, " is far below the eigenvalues of G, so that every vector counts: ",
            "a larger --lambda tells layers apart.\n");
  found.figures.push_back(
      figure_of(std::move(chart), "The largest degrees of freedom of each layer's heads."));
  return found;
}

}  // namespace plait::probe
