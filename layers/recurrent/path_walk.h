// Keys that a path of factors H_t = I - beta_t w_t w_t' moves (PaTH attention, arXiv 2505.16381): the query
// at i meets the key at j as q_i' H_i H_{i-1} ... H_{j+1} k_j. The algebra is on the page, path_attention.md.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "layers/reference/projection.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/layer.h"

namespace plait {

class PathWalk {
 public:
  // Absolute positions; a row's own block and those before it are read newest first.
  static constexpr Index kBlock = 64;

  // All rows of a batch; those the segments cover are read and written.
  struct Rows {
    View<const float> q;     // [rows, num_heads * head_dim]
    View<const float> k;     // [rows, num_kv_heads * head_dim]
    View<const float> v;     // [rows, num_kv_heads * value_head_dim]
    View<const float> w;     // [rows, num_kv_heads * head_dim] of length 1
    View<const float> beta;  // [rows, num_kv_heads] in [0, 2]
    View<float> o;           // [rows, num_heads * value_head_dim]
  };

  // fields: those of the walk are appended.
  PathWalk(const ProjectionSettings& heads, double scale, std::vector<Field>& fields);

  // log_f: field of the sums of log decays, f64, order columns, [num_heads], the segments' rows included;
  // they are added to the logits in front of the scale.
  void run(const Rows& rows, std::span<const Segment> segments, std::optional<Index> log_f,
           const Compute& compute) const;

 private:
  // Rows of one segment in one block.
  struct Part {
    const Segment* segment;
    Index first_row, position, rows;
    Index place() const { return position % kBlock; }
  };
  class Tile;

  void extend(const Part& part, Index kv_head, const Rows& rows, View<float> yz, const Kernels& k) const;
  Index yz_width() const { return heads_.head_dim + kBlock; }

  ProjectionSettings heads_;
  float scale_ = 1;
  Index first_field_ = 0;  // k, v, w, yz
};

}  // namespace plait
