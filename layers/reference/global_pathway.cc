#include "layers/reference/global_pathway.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/projection.h"
#include "layers/reference/recurrence.h"

namespace plait {

GlobalPathwaySettings read_global_pathway(Config& config) {
  GlobalPathwaySettings s;
  s.width = config.width();
  s.causal = config.surroundings().causal;
  s.dim = config.integer_or(
      "dim", s.dim,
      "columns of the pooled value: of the tokens so far, or of all where the card says causal: false", 1);
  s.gate = static_cast<GlobalPathwaySettings::Gate>(
      config.choice("gate", {"flat", "hierarchical"}, "of a token: sigmoid(g), or sigmoid(a) softmax(r)_1"));
  config.finish();
  return s;
}

std::vector<TensorSpec> global_pathway_tensors(const GlobalPathwaySettings& s) {
  const std::string rows = s.gate == GlobalPathwaySettings::Gate::flat ? "1" : "3";
  return {{"pool", {1, s.width}, Init::normal, "[1, width]", true},
          {"value", {s.dim, s.width}, Init::normal, "[dim, width]", true},
          {"gate", {s.gate_rows(), s.width}, Init::normal, "[" + rows + ", width]", true},
          {"gate_bias", {s.gate_rows()}, Init::small, "[" + rows + "]"},
          {"o", {s.width, s.dim}, Init::normal, "[width, dim]", true}};
}

namespace {

class GlobalPathwayTwin final : public Twin {
 public:
  GlobalPathwayTwin(const GlobalPathwaySettings& settings, const Parameters& parameters)
      : s_(settings),
        pool_(to_double(parameters.tensor("pool"))),
        value_(to_double(parameters.tensor("value"))),
        gate_(to_double(parameters.tensor("gate"))),
        gate_bias_(to_double(parameters.tensor("gate_bias"))),
        o_(to_double(parameters.tensor("o"))) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    const std::vector<double> s = project(x, pool_, {}, 1), v = project(x, value_, {}, s_.dim),
                              g = project(x, gate_, gate_bias_, s_.gate_rows());
    std::vector<double> pooled;
    for (Index i = 0; i < x.rows; ++i) {
      if (s_.causal || i == 0) pooled = pool(s, v, s_.causal ? i + 1 : x.rows);
      const std::vector<double> y = project({pooled.data(), 1, s_.dim}, o_, {}, s_.width);
      for (Index c = 0; c < s_.width; ++c)
        output(i, c) = factor(g.data() + i * s_.gate_rows()) * y[static_cast<std::size_t>(c)];
    }
  }

 private:
  // The mean of the first `count` values under the softmax of their logits.
  std::vector<double> pool(const std::vector<double>& s, const std::vector<double>& v, Index count) const {
    const double greatest = *std::max_element(s.begin(), s.begin() + count);
    std::vector<double> sums(static_cast<std::size_t>(s_.dim));
    double mass = 0;
    for (Index j = 0; j < count; ++j) {
      const double p = std::exp(s[static_cast<std::size_t>(j)] - greatest);
      mass += p;
      for (Index c = 0; c < s_.dim; ++c)
        sums[static_cast<std::size_t>(c)] += p * v[static_cast<std::size_t>(j * s_.dim + c)];
    }
    for (double& sum : sums) sum /= mass;
    return sums;
  }

  double factor(const double* g) const {
    if (s_.gate == GlobalPathwaySettings::Gate::flat) return reference::sigmoid(g[0]);
    return reference::sigmoid(g[0]) * std::exp(g[2]) / (std::exp(g[1]) + std::exp(g[2]));
  }

  GlobalPathwaySettings s_;
  std::vector<double> pool_, value_, gate_, gate_bias_, o_;
};

}  // namespace

std::shared_ptr<Twin> make_global_pathway_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<GlobalPathwayTwin>(read_global_pathway(config), parameters);
}

}  // namespace plait
