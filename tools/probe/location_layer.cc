#include "tools/probe/location_layer.h"

#include <cassert>
#include <cmath>

#include "runtime/base/panel.h"
#include "runtime/run/registry.h"
#include "runtime/run/state.h"

namespace plait::probe {
namespace {

// factor times a direction at this cosine with `hidden`, and nothing of the column of ones.
std::vector<float> weights(double factor, double cosine, const std::vector<double>& hidden,
                           const std::vector<double>& other) {
  std::vector<float> w;
  for (std::size_t c = 0; c < hidden.size(); ++c)
    w.push_back(
        static_cast<float>(factor * (cosine * hidden[c] + std::sqrt(1 - cosine * cosine) * other[c])));
  w.push_back(0);
  return w;
}

Json settings_of(const LocationEstimator& estimator) {
  Json settings = {{"num_heads", 1}, {"head_dim", 1}, {"scale", 1}};
  const auto* own = std::get_if<LocationWeights>(&estimator.normaliser);
  if (!own) return settings;
  constexpr const char* kNames[] = {"linear_unnormalised", "erf_unnormalised", "softplus_normalised"};
  settings["normaliser"] = kNames[static_cast<int>(own->function)];
  if (own->function == LocationWeights::Function::erf) settings["erf_unnormalised"] = {{"c", own->shift}};
  return settings;
}

}  // namespace

Estimate layer_risk(const LocationTask& task, const LocationEstimator& estimator, Index width,
                    const Sampling& sampling) {
  assert(width >= 4);
  const std::vector<std::vector<double>> d = location_directions(4, width, sampling.seed);
  const double root = std::sqrt(static_cast<double>(width));
  const Index columns = width + 1;
  std::vector<float> ones(static_cast<std::size_t>(columns)), first = ones;
  ones.back() = first.front() = 1;
  const auto matrix = [&](Shape shape, const std::vector<float>& w) {
    return pack(make_tensor(std::move(shape), w), DType::f32);
  };
  const Parameters parameters({
      {"q", matrix({1, columns}, ones)},
      {"k", matrix({1, columns}, weights(estimator.factor / root, task.key_cosine, d[0], d[2]))},
      {"v", matrix({1, columns}, weights(estimator.scale / root, task.value_cosine, d[1], d[3]))},
      {"o", matrix({columns, 1}, first)},
  });
  Surroundings surroundings;
  surroundings.width = columns;
  Config config("single_location_regression", settings_of(estimator), surroundings);
  const std::unique_ptr<Layer> layer = Registry::builtin().find("softmax_attention").make(config, parameters);
  return average(sampling, 1, [&](Source& source, double* values) {
    const LocationSample sample = draw_sample(task, d[0], d[1], source);
    std::vector<float> x, y(static_cast<std::size_t>(task.tokens * columns));
    for (Index l = 0; l < task.tokens; ++l) {
      const auto row = sample.tokens.begin() + l * width;
      x.insert(x.end(), row, row + width);
      x.push_back(1);
    }
    const View<const float> input(x.data(), task.tokens, columns);
    Ports ports;
    ports.inputs = {&input, 1};
    ports.output = View<float>(y.data(), task.tokens, columns);
    State state(layer->fields());
    const Segment segment{&state, 0, 0, task.tokens, nullptr};
    Context context{Compute{}};
    layer->run(ports, {&segment, 1}, context);
    const double off = sample.label - ports.output(task.tokens - 1, 0);
    values[0] = off * off;
  })[0];
}

}  // namespace plait::probe
