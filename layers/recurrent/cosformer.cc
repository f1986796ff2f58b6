#include "layers/recurrent/cosformer.h"

#include "layers/recurrent/feature_attention.h"
#include "layers/reference/cosformer.h"

namespace plait {

Kind cosformer_kind() {
  Kind kind;
  kind.key = "cosformer";
  kind.group = "recurrent";
  kind.summary = "linear attention whose weights fall with the distance like a cosine";
  kind.source = "Qin et al., arXiv 2202.08791";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32, "M": 256})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40, "M": 200,
          "feature": "elu_plus_one", "bias": false})",
      R"({"num_heads": 2, "head_dim": 16, "M": 256, "query": {"lambda": [0.25], "center": false}})"};
  kind.tensors = [](Config& config) { return feature_attention_tensors(read_cosformer(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    const CosformerSettings s = read_cosformer(config);
    const auto feature =
        s.feature == CosformerSettings::Feature::relu ? &Kernels::relu : &Kernels::elu_plus_one;
    return make_feature_attention(s, cosine_reweighting(s.head_dim, feature, s.reach), parameters);
  };
  kind.twin = make_cosformer_twin;
  return kind;
}

}  // namespace plait
