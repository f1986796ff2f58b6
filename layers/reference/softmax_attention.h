// Settings, tensors and twin of `softmax_attention` (layers/attention/softmax_attention.md).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "layers/reference/attention_options.h"
#include "layers/reference/projection.h"
#include "layers/reference/twin.h"

namespace plait {

struct SoftmaxAttentionSettings {
  enum class Gate { none, sigmoid };
  enum class Granularity { elementwise, headwise };
  enum class Packing { separate, per_query_head, per_kv_group };

  ProjectionSettings projection;
  std::vector<ScoreOption> score;  // in this order
  bool causal = true;              // row i sees j <= i only
  Index window = 0, sinks = 0;     // of those, the j with |i - j| < window, and j < sinks; window 0 = all
  NormaliserOption normaliser;
  ReadoutOption readout;
  Gate gate = Gate::none;
  Granularity granularity = Granularity::elementwise;
  Packing packing = Packing::separate;
  bool gate_bias = false;
  DType cache = DType::f32;  // what cached keys and values are rounded to
  bool output_bias = false;
  std::optional<double> output_norm;  // eps of the norm of every head, before the gate

  // Gate factors per head: value_head_dim, 1 or 0.
  Index gate_width() const;
  // Heads behind the readout: what the gate and the output projection see.
  Index heads_out() const { return output_heads(readout, projection.num_heads); }
};

SoftmaxAttentionSettings read_softmax_attention(Config& config);  // ends with config.finish()
std::vector<TensorSpec> softmax_attention_tensors(const SoftmaxAttentionSettings& settings);
std::shared_ptr<Twin> make_softmax_attention_twin(Config& config, const Parameters& parameters);

}  // namespace plait
