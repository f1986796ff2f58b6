// Settings of rotary position embedding and its double-precision form (layers/attention/rope.md).
#pragma once

#include <optional>
#include <vector>

#include "runtime/base/view.h"
#include "runtime/graph/config.h"

namespace plait {

struct RopeScaling {
  enum class Type { none, linear, llama3, yarn };
  Type type = Type::none;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  Index original_max_position_embeddings = 0;        // llama3, yarn
  double beta_fast = 32, beta_slow = 1;              // yarn, rotations over the original context
  double attention_factor = 0;                       // yarn; 0 = from factor, mscale, mscale_all_dim
  double mscale = 0, mscale_all_dim = 0;             // yarn; 0 = absent
  bool truncate = true;                              // yarn: whole channel numbers as corrections
};

struct RopeSettings {
  enum class Layout { half_split, interleaved };
  double theta = 10000;
  Index dim = 0;  // rotary channels, the first ones of a head
  Layout layout = Layout::half_split;
  RopeScaling scaling = {};
};

// The node's "rope" object; nothing when it is absent (no rotary embedding).
std::optional<RopeSettings> read_rope(Config& config, Index head_dim);

// The twin's own frequencies [dim / 2] in radians per position, and the factor on both cosine and sine.
std::vector<double> rope_frequencies(const RopeSettings& settings);
double rope_attention_factor(const RopeSettings& settings);
// Rotates one head of one row at `position`. x [>= dim]
void rotate_head(const RopeSettings& settings, double position, double* x);

}  // namespace plait
