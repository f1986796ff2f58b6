// What attention by feature maps (linear_attention and its thin relatives) has in common: settings, tensors
// and the twin but for its map phi.
#pragma once

#include <optional>
#include <vector>

#include "layers/reference/curvature_conditioned_query.h"
#include "layers/reference/recurrence.h"
#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct FeatureAttentionSettings {
  // o = sum of weights times values, by itself or, with mass the sum of weights, over mass + eps, over
  // max(mass, eps), or over mass, and 0 where that is not positive.
  enum class Division { none, plus_eps, at_least_eps, positive };
  Index width = 0, chunk = 0;
  Index num_heads = 0, num_kv_heads = 0;  // each key/value head has a state
  Index head_dim = 0, value_head_dim = 0;
  bool bias = false;  // of all four projections
  Division division = Division::plus_eps;
  double eps = 0;
  bool output_norm = false;
  double norm_eps = 1e-5;
  double scale = 1;  // of every weight
  std::optional<QuerySettings> query;

  bool normalises() const { return division != Division::none; }
};

// width, chunk, num_heads, num_kv_heads.
void read_feature_heads(Config& config, FeatureAttentionSettings& settings);
// head_dim and value_head_dim of the kinds whose features grow like head_dim^2.
void read_narrow_keys(Config& config, FeatureAttentionSettings& settings);
// Projections with their biases, norm.
std::vector<TensorSpec> feature_attention_tensors(const FeatureAttentionSettings& settings);

class FeatureAttentionTwin : public Twin {
 public:
  FeatureAttentionTwin(const FeatureAttentionSettings& settings, const Parameters& parameters)
      : weights_(parameters), s_(settings), lambda_(query_lambdas(settings.query, parameters)) {}
  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const final;

 protected:
  enum class Side { query, key };
  using Rows = reference::Rows;
  // phi per head. x [tokens, heads * head_dim], returns [tokens, heads * width of phi]
  virtual Rows features(Side side, Rows x) const = 0;
  // map(x [head_dim], y [width], token) for every head.
  template <class Map>
  static Rows each_head(const Rows& x, Index head_dim, Index width, Map&& map) {
    const Index heads = x.cols / head_dim;
    Rows y(x.rows, heads * width);
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < heads; ++h) map(x.row(t) + h * head_dim, y.row(t) + h * width, t);
    return y;
  }

  reference::Weights weights_;

 private:
  Rows project(const char* name, View<const double> x) const;
  double divisor(double mass) const;

  FeatureAttentionSettings s_;
  std::vector<double> lambda_;  // of the query
};

}  // namespace plait
