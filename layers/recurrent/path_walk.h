// Keys that a path of factors H_t = I - beta_t w_t w_t' moves (PaTH attention, arXiv 2505.16381): the query
// at i meets the key at j as q_i' H_i H_{i-1} ... H_{j+1} k_j. The algebra is on the page, path_attention.md.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "layers/recurrent/block_softmax.h"
#include "layers/reference/projection.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/layer.h"

namespace plait {

class PathWalk {
 public:
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
  class Tile;

  void extend(const BlockPart& part, Index kv_head, const Rows& rows, View<float> yz, const Kernels& k) const;
  Index yz_width() const { return heads_.head_dim + kWalkBlock; }

  ProjectionSettings heads_;
  float scale_ = 1;
  Index first_field_ = 0;  // k, v, w, yz
};

}  // namespace plait
