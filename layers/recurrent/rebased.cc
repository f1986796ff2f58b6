#include "layers/recurrent/rebased.h"

#include "layers/recurrent/feature_attention.h"
#include "layers/reference/rebased.h"

namespace plait {
namespace {

using QkNorm = RebasedSettings::QkNorm;

std::unique_ptr<FeatureMap> make_map(const RebasedSettings& s, const Parameters& parameters) {
  // A conditioned query is no square of anything narrower.
  std::unique_ptr<FeatureMap> map = quadratic_features(s.head_dim, !s.query);
  if (s.qk_norm == QkNorm::none) return map;
  const auto norm = [&](const std::string& name) {
    FeatureNorm made{to_float(parameters.tensor(name)), {}};
    if (s.qk_norm != QkNorm::scale) made.bias = to_float(parameters.tensor(name + "_bias"));
    return made;
  };
  if (!s.normalises_queries()) return scaled_features(std::move(map), norm("q_norm"), norm("k_norm"));
  const bool shared = s.qk_norm == QkNorm::per_head_shared;
  return normed_features(std::move(map), norm(shared ? "qk_norm" : "q_norm"),
                         norm(shared ? "qk_norm" : "k_norm"), static_cast<float>(s.qk_norm_eps));
}

}  // namespace

Kind rebased_kind() {
  Kind kind;
  kind.key = "rebased";
  kind.group = "recurrent";
  kind.summary = "linear attention with narrow, normed keys and weights (q.k)^2";
  kind.source = "Aksenov et al., arXiv 2402.10644";
  kind.examples = {R"({"num_heads": 2})",
                   R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 7, "value_head_dim": 40,
          "qk_norm": "per_head_shared"})",
                   R"({"num_heads": 2, "num_kv_heads": 1, "head_dim": 6, "qk_norm": "scale"})",
                   R"({"num_heads": 2, "head_dim": 5, "qk_norm": "scale_and_shift"})",
                   R"({"num_heads": 2, "head_dim": 9, "value_head_dim": 24, "qk_norm": "none"})",
                   R"({"num_heads": 2, "head_dim": 6, "query": {"lambda": [0.25, 0.5]}})"};
  kind.tensors = [](Config& config) { return rebased_tensors(read_rebased(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    const RebasedSettings s = read_rebased(config);
    return make_feature_attention(s, make_map(s, parameters), parameters);
  };
  kind.twin = make_rebased_twin;
  return kind;
}

}  // namespace plait
