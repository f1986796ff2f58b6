// Settings, tensors and twin of `mamba2` (layers/recurrent/mamba2.md).
#pragma once

#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "layers/reference/curvature_conditioned_query.h"
#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct Mamba2Settings {
  enum class Norm { gated_rms, gate_only, norm_before_gate };
  Index width = 0, chunk = 0;
  Index num_heads = 0, head_dim = 0;  // value heads and their width
  Index state_dim = 0;                // width of B and C
  Index num_groups = 1;               // B and C heads; head h uses group h / (num_heads / num_groups)
  Index conv = 4;                     // kernel
  bool conv_bias = true;
  double dt_min = 0, dt_max = std::numeric_limits<double>::infinity();  // clamp of the step after softplus
  Norm norm = Norm::gated_rms;
  double norm_eps = 1e-5;
  bool skip_d = true;
  bool in_bias = false, out_bias = false;
  double input_multiplier = 1;                              // of u, in front of W_in
  std::vector<double> slice_multipliers = {1, 1, 1, 1, 1};  // of z, x, B, C, dt, behind in_bias
  std::optional<QuerySettings> query;

  Index inner() const { return num_heads * head_dim; }
  Index groups_width() const { return num_groups * state_dim; }
  Index conv_channels() const { return inner() + 2 * groups_width(); }  // x, B, C
  std::array<Index, 5> slices() const {
    return {inner(), inner(), groups_width(), groups_width(), num_heads};
  }
  Index in_rows() const { return inner() + conv_channels() + num_heads; }  // z, x, B, C, dt
};

Mamba2Settings read_mamba2(Config& config);  // ends with config.finish()
std::vector<TensorSpec> mamba2_tensors(const Mamba2Settings& settings);
std::shared_ptr<Twin> make_mamba2_twin(Config& config, const Parameters& parameters);

}  // namespace plait
