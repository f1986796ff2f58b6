#include "layers/reference/linear_attention.h"

#include <algorithm>
#include <cmath>

namespace plait {
namespace {

using Features = LinearAttentionSettings::Features;
using Division = FeatureAttentionSettings::Division;

// What every map but the random one can choose freely; that one's queries carry a factor which only the
// division takes away.
void read_division(Config& config, LinearAttentionSettings& s) {
  const bool normalise = config.boolean_or("normalise", true, "divides by the sum of the weights");
  if (s.feature_map == Features::positive_random_features) {
    if (!normalise) config.refuse("feature_map positive_random_features needs normalise: true");
    s.division = Division::positive;
    return;
  }
  s.division = normalise ? Division::plus_eps : Division::none;
  s.eps = config.number_or("eps", 1e-10, "added to that sum; UNCONFIRMED");
  if (!(s.eps > 0)) config.refuse("eps is ", s.eps, ", but must be positive: weights may sum to 0");
}

}  // namespace

LinearAttentionSettings read_linear_attention(Config& config) {
  LinearAttentionSettings s;
  read_feature_heads(config, s);
  s.head_dim = config.integer("head_dim", "width of a query or key head");
  s.value_head_dim = config.integer_or("value_head_dim", s.head_dim, "width of a value head", 1);
  s.feature_map = static_cast<Features>(
      config.choice("feature_map", {"elu", "relu", "identity", "taylor2", "positive_random_features"},
                    "of queries and keys; elu means elu(x) + 1"));
  if (s.feature_map == Features::positive_random_features)
    s.random_features =
        config.integer("M", "number of random features, the same for all heads (UNCONFIRMED)");
  read_division(config, s);
  s.output_norm = config.boolean_or("output_norm", s.output_norm, "RMS norm per head");
  s.norm_eps = config.number_or("norm_eps", s.norm_eps, "of the output norm", 0);
  if (s.feature_map != Features::positive_random_features) {
    s.scale = config.number_or("scale", 0, "of the queries; 0 = head_dim^-1/2");
    if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  }
  s.query = read_query(config, s.num_heads, false);
  config.finish();
  return s;
}

std::vector<TensorSpec> linear_attention_tensors(const LinearAttentionSettings& s) {
  std::vector<TensorSpec> specs = feature_attention_tensors(s);
  if (s.feature_map == Features::positive_random_features) {
    specs.push_back({"z", {s.random_features, s.head_dim}, Init::unit_normal, "[M, head_dim]"});
    specs.push_back({"a", {s.random_features}, Init::ones, "[M]"});
  }
  return specs;
}

namespace {

class LinearAttentionTwin final : public FeatureAttentionTwin {
 public:
  LinearAttentionTwin(const LinearAttentionSettings& settings, const Parameters& parameters)
      : FeatureAttentionTwin(settings, parameters), s_(settings) {}

 private:
  Rows features(Side, Rows x) const override {
    const Index d = s_.head_dim;
    switch (s_.feature_map) {
      case Features::elu:
        reference::map(x, [](double value) { return value > 0 ? value + 1 : std::exp(value); });
        return x;
      case Features::relu:
        reference::map(x, [](double value) { return std::max(value, 0.0); });
        return x;
      case Features::identity:
        return x;
      case Features::taylor2:
        return each_head(x, d, 1 + d + d * (d + 1) / 2,
                         [&](const double* from, double* y, Index) { taylor(from, y); });
      case Features::positive_random_features:
        return each_head(x, d, s_.random_features,
                         [&](const double* from, double* y, Index) { random(from, y); });
    }
    return x;
  }

  void taylor(const double* x, double* y) const {
    const Index d = s_.head_dim;
    *y++ = 1;
    for (Index i = 0; i < d; ++i) *y++ = x[i] / std::pow(static_cast<double>(d), 0.25);
    for (Index i = 0; i < d; ++i) *y++ = x[i] * x[i] / std::sqrt(2.0 * static_cast<double>(d));
    for (Index i = 0; i < d; ++i)
      for (Index j = i + 1; j < d; ++j) *y++ = x[i] * x[j] / std::sqrt(static_cast<double>(d));
  }
  void random(const double* x, double* y) const {
    const Index d = s_.head_dim, count = s_.random_features;
    const double root = std::sqrt(static_cast<double>(d));
    const std::vector<double>& z = weights_["z"];
    for (Index m = 0; m < count; ++m) {
      double product = 0, square = 0;
      for (Index i = 0; i < d; ++i) {
        product += z[static_cast<std::size_t>(m * d + i)] * x[i];
        square += x[i] * x[i];
      }
      y[m] = std::sqrt(weights_.at("a", m) / static_cast<double>(count)) *
             std::exp(product / std::sqrt(root) - square / (2 * root));
    }
  }

  LinearAttentionSettings s_;
};

}  // namespace

std::shared_ptr<Twin> make_linear_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<LinearAttentionTwin>(read_linear_attention(config), parameters);
}

}  // namespace plait
