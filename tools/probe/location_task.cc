#include "tools/probe/location_task.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "runtime/base/noise.h"

namespace plait::probe {
namespace {

// A normaliser of softmax_attention as a function of a row of logits.
class Weights {
 public:
  Weights(const NormaliserOption& normaliser, Index tokens) : twin_(make_twin(normaliser, Parameters{})) {
    for (Index l = 0; l < tokens; ++l) row_.keys.push_back(l);
    row_.position = tokens - 1;
  }
  std::vector<double> operator()(const std::vector<double>& chi, double factor) const {
    std::vector<double> logits = chi;
    for (double& x : logits) x *= factor;
    return twin_->weights(row_, logits);
  }

 private:
  std::unique_ptr<NormaliserTwin> twin_;
  TwinRow row_;
};

// chi of the hidden key and of the estimator's.
struct Scores {
  std::vector<double> hidden, seen;
};

Scores draw_scores(const LocationTask& task, Source& source) {
  Scores s;
  const double off = std::sqrt(1 - task.key_cosine * task.key_cosine);
  // Tokens are exchangeable, and every quantity is a symmetric function of them: the location is token 0.
  for (Index l = 0; l < task.tokens; ++l) {
    const bool spike = l == 0 && task.law == LocationTask::Law::spiked;
    const double chi = source.normal() + (spike ? std::sqrt(task.nu) : 0);
    s.hidden.push_back(chi);
    s.seen.push_back(off > 0 ? task.key_cosine * chi + off * source.normal() : chi);
  }
  return s;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

double LocationTask::posterior_factor() const { return law == Law::spiked ? std::sqrt(nu) : nu; }

double LocationEstimator::shift() const {
  const auto* weights = std::get_if<LocationWeights>(&normaliser);
  return weights ? weights->shift : 0;
}

std::vector<std::vector<double>> location_directions(Index count, Index width, std::uint64_t seed) {
  std::vector<std::vector<double>> all;
  for (Index i = 0; i < count; ++i) {
    Source source(noise_key({seed, 1}), static_cast<std::uint64_t>(i));
    std::vector<double> d(static_cast<std::size_t>(width));
    for (double& x : d) x = source.normal();
    for (const std::vector<double>& other : all) {
      double along = 0;
      for (std::size_t c = 0; c < d.size(); ++c) along += d[c] * other[c] / static_cast<double>(width);
      for (std::size_t c = 0; c < d.size(); ++c) d[c] -= along * other[c];
    }
    double square = 0;
    for (const double x : d) square += x * x;
    for (double& x : d) x *= std::sqrt(static_cast<double>(width) / square);
    all.push_back(std::move(d));
  }
  return all;
}

LocationSample draw_sample(const LocationTask& task, const std::vector<double>& key,
                           const std::vector<double>& value, Source& source) {
  const auto width = static_cast<Index>(key.size());
  const double root = std::sqrt(static_cast<double>(width));
  LocationSample sample;
  sample.tokens.resize(static_cast<std::size_t>(task.tokens * width));
  for (double& x : sample.tokens) x = source.normal();
  const auto along = [&](const std::vector<double>& direction, Index l) {
    double sum = 0;
    for (Index c = 0; c < width; ++c)
      sum += sample.tokens[static_cast<std::size_t>(l * width + c)] * direction[static_cast<std::size_t>(c)];
    return sum / root;
  };
  if (task.law == LocationTask::Law::spiked) {
    sample.location = source.below(task.tokens);
    for (Index c = 0; c < width; ++c)
      sample.tokens[static_cast<std::size_t>(sample.location * width + c)] +=
          std::sqrt(task.nu) * key[static_cast<std::size_t>(c)] / root;
  } else {
    std::vector<double> chi;
    for (Index l = 0; l < task.tokens; ++l) chi.push_back(along(key, l));
    const std::vector<double> posterior = Weights(Softmax{}, task.tokens)(chi, task.posterior_factor());
    double left = source.uniform() - posterior[0];
    while (left >= 0 && sample.location + 1 < task.tokens)
      left -= posterior[static_cast<std::size_t>(++sample.location)];
  }
  sample.label = along(value, sample.location) + task.noise * source.normal();
  return sample;
}

Estimate bayes_risk(const LocationTask& task, const Sampling& sampling) {
  const Weights softmax(Softmax{}, task.tokens);
  return average(sampling, 1, [&](Source& source, double* values) {
    const std::vector<double> a = softmax(draw_scores(task, source).hidden, task.posterior_factor());
    values[0] = task.noise * task.noise + 1 - dot(a, a);
  })[0];
}

Estimate location_risk(const LocationTask& task, const LocationEstimator& estimator,
                       const Sampling& sampling) {
  const Weights softmax(Softmax{}, task.tokens), sigma(estimator.normaliser, task.tokens);
  return average(sampling, 1, [&](Source& source, double* values) {
    const Scores scores = draw_scores(task, source);
    const std::vector<double> a = softmax(scores.hidden, task.posterior_factor()),
                              w = sigma(scores.seen, estimator.factor);
    values[0] = task.noise * task.noise + 1 - 2 * estimator.scale * task.value_cosine * dot(w, a) +
                estimator.scale * estimator.scale * dot(w, w);
  })[0];
}

namespace {

// Where the search ends: beyond, nothing changes but rounding (1 + erf(-4) is 1.5e-8).
constexpr double kMostLogFactor = 12, kMostShift = 4;

// What the fit sees of its draws, and the least risk over the scale: 1 - (c A)^2 / B with A = E w.a,
// B = E |w|^2.
class Fit {
 public:
  Fit(const LocationTask& task, const NormaliserOption& normaliser, const Sampling& sampling)
      : task_(task), normaliser_(normaliser) {
    const Weights softmax(Softmax{}, task.tokens);
    for (Index draw = 0; draw < sampling.draws; ++draw) {
      Source source(sampling.seed, static_cast<std::uint64_t>(draw));
      Scores scores = draw_scores(task, source);
      posteriors_.push_back(softmax(scores.hidden, task.posterior_factor()));
      seen_.push_back(std::move(scores.seen));
    }
  }

  struct Place {
    double log_factor = 0, shift = 0;
  };
  struct Value {
    double risk = 0, scale = 0;
  };
  Value at(const Place& place) const {
    const Weights sigma(estimator(place).normaliser, task_.tokens);
    double match = 0, square = 0;
    for (std::size_t i = 0; i < seen_.size(); ++i) {
      const std::vector<double> w = sigma(seen_[i], std::exp(place.log_factor));
      match += dot(w, posteriors_[i]);
      square += dot(w, w);
    }
    const double n = static_cast<double>(seen_.size());
    match *= task_.value_cosine / n, square /= n;
    return {1 - match * match / square, match / square};
  }

  LocationEstimator estimator(const Place& place) const {
    LocationEstimator e{normaliser_, std::exp(place.log_factor), 1};
    if (auto* weights = std::get_if<LocationWeights>(&e.normaliser)) weights->shift = place.shift;
    return e;
  }

 private:
  const LocationTask& task_;
  NormaliserOption normaliser_;
  std::vector<std::vector<double>> posteriors_, seen_;
};

}  // namespace

LocationEstimator fit_estimator(const LocationTask& task, const NormaliserOption& normaliser,
                                const Sampling& sampling) {
  const auto* weights = std::get_if<LocationWeights>(&normaliser);
  const bool shifts = weights && weights->function == LocationWeights::Function::erf;
  const Fit fit(task, normaliser, sampling);
  Fit::Place best;
  Fit::Value least = fit.at(best);
  for (double step = 1; step > 0.01;) {
    const Fit::Place before = best;
    for (const double sign : {1.0, -1.0}) {
      std::vector<Fit::Place> tries = {{before.log_factor + sign * step, before.shift}};
      if (shifts) tries.push_back({before.log_factor, before.shift + sign * step});
      for (const Fit::Place& place : tries) {
        if (std::abs(place.log_factor) > kMostLogFactor || std::abs(place.shift) > kMostShift) continue;
        const Fit::Value value = fit.at(place);
        if (!(value.risk < least.risk)) continue;
        least = value;
        best = place;
      }
    }
    if (best.log_factor == before.log_factor && best.shift == before.shift) step /= 2;
  }
  LocationEstimator fitted = fit.estimator(best);
  fitted.scale = least.scale;
  return fitted;
}

double linear_risk(const LocationTask& task) {
  assert(task.law == LocationTask::Law::spiked);
  const double tokens = static_cast<double>(task.tokens), nu = task.nu * task.key_cosine * task.key_cosine;
  const double aligned = (1 - 1 / tokens) / (1 + nu * (tokens - 1) / (tokens * tokens));
  return task.noise * task.noise + 1 - task.value_cosine * task.value_cosine * (1 - aligned);
}

}  // namespace plait::probe
