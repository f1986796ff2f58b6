#include "layers/reference/cosformer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace plait {

CosformerSettings read_cosformer(Config& config) {
  CosformerSettings s;
  read_feature_heads(config, s);
  s.head_dim = config.integer("head_dim", "width of a query or key head");
  s.value_head_dim = config.integer_or("value_head_dim", s.head_dim, "width of a value head", 1);
  s.feature = static_cast<CosformerSettings::Feature>(
      config.choice("feature", {"relu", "elu_plus_one"}, "of queries and keys"));
  s.reach = config.integer(
      "M", "longest sequence in training: the distance at which weights reach 0; UNCONFIRMED for streams");
  s.bias = config.boolean_or("bias", true, "of all four projections");
  s.division = FeatureAttentionSettings::Division::at_least_eps;
  s.eps = config.number_or("eps", 1e-6, "smallest sum of weights that is divided by");
  if (!(s.eps > 0))
    config.refuse("eps is ", s.eps, ", but must be positive: a row of ReLU features may be all zeros");
  s.query = read_query(config, s.num_heads, false);
  config.finish();
  return s;
}

namespace {

class CosformerTwin final : public FeatureAttentionTwin {
 public:
  CosformerTwin(const CosformerSettings& settings, const Parameters& parameters)
      : FeatureAttentionTwin(settings, parameters), s_(settings) {}

 private:
  Rows features(Side, Rows x) const override {
    const Index d = s_.head_dim;
    return each_head(x, d, 2 * d, [&](const double* from, double* y, Index t) {
      const double angle = std::numbers::pi / 2 * static_cast<double>(t + 1) / static_cast<double>(s_.reach);
      for (Index i = 0; i < d; ++i) {
        double value = std::max(from[i], 0.0);
        if (s_.feature == CosformerSettings::Feature::elu_plus_one)
          value = from[i] > 0 ? from[i] + 1 : std::exp(from[i]);
        y[i] = value * std::sin(angle);
        y[d + i] = value * std::cos(angle);
      }
    });
  }

  CosformerSettings s_;
};

}  // namespace

std::shared_ptr<Twin> make_cosformer_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<CosformerTwin>(read_cosformer(config), parameters);
}

}  // namespace plait
