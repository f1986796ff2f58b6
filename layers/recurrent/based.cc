#include "layers/recurrent/based.h"

#include "layers/recurrent/feature_attention.h"
#include "layers/reference/based.h"

namespace plait {

Kind based_kind() {
  Kind kind;
  kind.key = "based";
  kind.group = "recurrent";
  kind.summary = "linear attention with narrow keys and weights 1 + s + s^2 / 2";
  kind.source = "Arora et al., arXiv 2402.18668";
  kind.examples = {
      R"({"num_heads": 2})", R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 7, "value_head_dim": 40})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "query": {"lambda_source": "tensor"}})"};
  kind.tensors = [](Config& config) { return feature_attention_tensors(read_based(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    const FeatureAttentionSettings s = read_based(config);
    return make_feature_attention(s, taylor_features(s.head_dim), parameters);
  };
  kind.twin = make_based_twin;
  return kind;
}

}  // namespace plait
