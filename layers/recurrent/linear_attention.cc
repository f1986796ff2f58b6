#include "layers/recurrent/linear_attention.h"

#include "layers/recurrent/feature_attention.h"
#include "layers/reference/linear_attention.h"

namespace plait {
namespace {

using Features = LinearAttentionSettings::Features;

std::unique_ptr<FeatureMap> make_map(const LinearAttentionSettings& s, const Config& config,
                                     const Parameters& parameters) {
  switch (s.feature_map) {
    case Features::elu:
      return elementwise_features(s.head_dim, &Kernels::elu_plus_one);
    case Features::relu:
      return elementwise_features(s.head_dim, &Kernels::relu);
    case Features::identity:
      return elementwise_features(s.head_dim, nullptr);
    case Features::taylor2:
      return taylor_features(s.head_dim);
    case Features::positive_random_features:
      break;
  }
  for (const float weight : parameters.vector("a"))
    if (!(weight >= 0)) config.refuse("tensor a holds ", weight, ", but no weight of a feature is negative");
  return positive_random_features(parameters.tensor("z"), parameters.tensor("a"));
}

}  // namespace

Kind linear_attention_kind() {
  Kind kind;
  kind.key = "linear_attention";
  kind.group = "recurrent";
  kind.summary = "attention without softmax as a running sum of phi(k) v'";
  kind.source =
      "Katharopoulos et al., arXiv 2006.16236, equations 9 to 12; taylor2: Arora et al., arXiv 2402.18668; "
      "positive_random_features: arXiv 2507.03340";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "value_head_dim": 24, "feature_map": "taylor2"})",
      R"({"num_heads": 2, "head_dim": 24, "value_head_dim": 40, "feature_map": "relu", "output_norm": true})",
      R"({"num_heads": 1, "head_dim": 40, "feature_map": "identity", "normalise": false})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "feature_map": "positive_random_features",
          "M": 40})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24,
          "query": {"lambda": [0.5, 0, 0.125, 0.25], "center": false}})"};
  kind.tensors = [](Config& config) { return linear_attention_tensors(read_linear_attention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    const LinearAttentionSettings settings = read_linear_attention(config);
    return make_feature_attention(settings, make_map(settings, config, parameters), parameters);
  };
  kind.twin = make_linear_attention_twin;
  return kind;
}

}  // namespace plait
