#include "layers/attention/polysketch_attention.h"

#include "layers/attention/polynomial_attention.h"
#include "layers/reference/polysketch_attention.h"

namespace plait {

Kind polysketch_attention_kind() {
  Kind kind;
  kind.key = "polysketch_attention";
  kind.group = "attention";
  kind.summary = "attention with weights (q.k)^4 whose past is a sketch of constant size";
  kind.source = "PolySketchFormer, arXiv 2310.01655";
  kind.examples = {
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "rope": {"theta": 10000}, "r": 9})",
      R"({"num_heads": 2, "head_dim": 12, "value_head_dim": 40, "r": 12, "mixed": true, "sketch_rescale": true})",
      R"({"num_heads": 3, "head_dim": 16, "r": 8, "mixed": true, "block": 20,
          "rope": {"theta": 10000, "layout": "interleaved"}})",
      R"({"num_heads": 2, "head_dim": 16, "sketch": "learned", "r": 10, "rope": {"theta": 10000}})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "sketch": "learned",
          "r": 6, "mixed": true, "block": 24})",
      R"({"num_heads": 3, "head_dim": 6, "sketch": "none", "rope": {"theta": 10000}})"};
  kind.tensors = [](Config& config) {
    return polysketch_attention_tensors(read_polysketch_attention(config));
  };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return make_polysketch_attention(read_polysketch_attention(config), config.surroundings().grids,
                                     parameters);
  };
  kind.bound_factor = 32;  // fourth powers, see the page
  kind.twin = make_polysketch_attention_twin;
  return kind;
}

}  // namespace plait
