// The projection stage of the attention kinds: rows of a batch -> queries, keys and values of grouped heads,
// shifted, normed and rotated; queries of a second kind (tensor r) where a readout has them. Sites: conv
// (identity), qk_norm (off), position (none, shift).
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "layers/attention/rope.h"
#include "layers/attention/structured_qk.h"
#include "layers/reference/projection.h"
#include "runtime/base/arena.h"
#include "runtime/base/tensor.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/layer.h"

namespace plait {

// Rows as in the batch's ports; rows no segment covers are garbage.
struct Projected {
  View<float> q;     // [rows, num_heads * head_dim]
  View<float> k;     // [rows, num_kv_heads * head_dim]
  View<float> v;     // [rows, num_value_heads() * value_head_dim]
  View<float> gate;  // [rows, num_heads * packed_gate]; no columns unless the gate is packed into q
};

class Projection {
 public:
  // shift_logs: the first of the layer's fields that shift_fields() names.
  Projection(const ProjectionSettings& settings, const Parameters& parameters, Index shift_logs = 0);

  // What a shift keeps of the token before: its keys and its values as projected. Empty without one.
  std::vector<Field> shift_fields() const;

  const ProjectionSettings& settings() const { return settings_; }
  Projected take(Arena::Scope& scope, Index rows) const;
  // x [rows, width]
  void run(View<const float> x, std::span<const Segment> segments, const Projected& y,
           const Compute& compute) const;
  // Second queries, normed and rotated like the first: r [rows, num_heads * head_dim]. Needs tensor r.
  void second_queries(View<const float> x, std::span<const Segment> segments, View<float> r,
                      const Compute& compute) const;

 private:
  View<const float> scaled(View<const float> x, Arena::Scope& scope, const Compute& compute) const;
  void queries(View<const float> x, View<float> q, View<float> gate, const Compute& compute) const;
  // Gain and bias of a norm, of one head for all or of every head; no gain: no norm.
  struct Norm {
    std::vector<float> gain, bias;
  };
  struct Gains {
    std::span<const float> gain, bias;
    Gains columns(Index first, Index count) const;
  };
  Norm norm_of(const Parameters& parameters, const std::string& name) const;
  void keys(View<const float> x, View<float> k, const Compute& compute) const;
  // Keys or values of a batch := sigmoid(logits) times those of the token before + the rest of them. logits
  // [rows, heads]; log: a field of the state
  void shift(std::span<const Segment> segments, View<float> logits, View<float> rows, Index log,
             const Compute& compute) const;
  void prepare(const Segment& segment, View<float> rows, Index group, const Norm& norm,
               const Compute& compute) const;
  void prepare_heads(View<float> rows, Index heads, const Gains& gains, const Edit* no_norm,
                     const Edit* no_rope, const Edit* shift, Index position, const Compute& compute) const;
  void normalise(View<float> rows, const Gains& gains, const Compute& compute) const;
  void scale_queries(View<float> q, const Compute& compute) const;

  ProjectionSettings settings_;
  std::optional<StructuredQk> structured_;  // in place of q_ and k_
  Linear q_, k_, v_, r_;
  std::vector<float> q_bias_, k_bias_, v_bias_, r_bias_;
  Norm q_norm_, k_norm_, r_norm_;
  std::vector<float> query_factors_;
  std::optional<Linear> k_shift_, v_shift_;
  Index shift_logs_;
  std::optional<Rotary> rope_;
};

// The edit of this site and operator for key/value head `kv`, null if there is none. Keys are shared, so a
// scope of heads must name all query heads of a group or none; otherwise an Error says which.
const Edit* shared_edit(const Segment& segment, Site site, Operator op, Index kv, Index group);

// The sites the attention kinds share:
// position (with rope) and qk_norm (with it).
void add_projection_sites(const ProjectionSettings& settings, std::vector<SiteSpec>& sites);
// score, window, sinks: of kinds that walk over cached keys.
void add_cache_sites(Index heads, std::vector<SiteSpec>& sites);

}  // namespace plait
