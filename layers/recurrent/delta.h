// Form B, erase after decay, on the chunk grid:
//   S' = e^g S;  S = S' + k (write v - erase S'^T k)^T;  o = S^T q
// (Yang et al., arXiv 2406.06484 and 2412.06464; the chunk form is that of
// layers/recurrent/gated_delta_net.md.)
#pragma once

#include <vector>

#include "layers/recurrent/chunks.h"
#include "layers/recurrent/panels.h"
#include "runtime/run/layer.h"

namespace plait {

class Delta {
 public:
  enum class Decay { none, scalar };
  struct Sizes {
    Index key_heads = 0, value_heads = 0;  // value head h uses key head h / (value_heads / key_heads)
    Index key = 0, value = 0;              // widths of one head
    Index chunk = 0;
    Decay decay = Decay::scalar;
  };
  // All rows of a batch; those the segments cover are read and written.
  struct Rows {
    View<const float> q;      // [rows, key_heads * key], scale included
    View<const float> k;      // [rows, key_heads * key]
    View<const float> v;      // [rows, value_heads * value]
    View<const float> g;      // [rows, value_heads] log decay <= 0; not read with Decay::none
    View<const float> erase;  // [rows, value_heads]
    View<const float> write;  // [rows, value_heads]
    View<float> o;            // [rows, value_heads * value]
    // [rows, value_heads], or without data: where it is not 0, the erasure gives the length of what is
    // written and write v its direction.
    View<const float> match = {};
  };
  struct Bound {  // one sequence's fields
    float *state, *keys, *values, *decays;
  };
  struct Past {  // the same of a chunk that is only read
    const float *state, *keys, *values, *decays;
  };

  Delta() = default;
  // The core's fields are first_field and those after it in the layer's list.
  Delta(const Sizes& sizes, Index first_field);
  // Anchor S [value_heads, ceil(value / 32), key, 32]; open k, x (what a row wrote into the state), g.
  std::vector<Field> fields() const;

  void run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const;
  void fold(State& state, const Compute& compute) const;

  // For the walk over chunks.
  Index grid() const { return sizes_.chunk; }
  Index units() const { return sizes_.key_heads; }
  Index outputs() const { return sizes_.value_heads; }
  Bound bind(State& state) const;
  Past past(const Bound& b) const { return {b.state, b.keys, b.values, b.decays}; }
  Past past(const State& state, Index boundary) const;
  void absorb(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
              const Kernels& k) const;
  void read(const Past& past, const ChunkRows& part, Index head, const Rows& rows, const Kernels& k) const;
  void fold(const Bound& bound, Index key_head, const Kernels& k) const;
  void edit_anchors(const Bound& bound, const StateEdit& edit, Index key_head, const Kernels& k) const;

 private:
  // What the value heads of one key head share.
  struct Group {
    const Bound& bound;
    const ChunkRows& part;
    const Rows& rows;
    View<float> inputs;        // [2 n, key]: keys, then queries
    View<float> key_scores;    // [n, stride] k_i.k_j
    View<float> query_scores;  // [n, stride] q_i.k_j
  };
  void absorb_head(const Group& in, Index head, const Kernels& k) const;
  // solve[i][j] = -erase_i k_i.k_j e^{b_i - b_j}, read[i][j] = q_i.k_j e^{b_i - b_j}
  void weigh(const Group& in, Index head, const double* sums, View<float> solve, View<float> read,
             const Kernels& k) const;
  // Stores the rows' log decays; returns their sums from the start of the chunk, and factors[i] = e^{b_i}.
  void add_decays(const Group& in, Index head, double* sums, float* factors, const Kernels& k) const;
  // x_i = write_i v_i in the length it has with the erasure, i ascending. weights as `solve`; x [end, value]
  // holds write v - erase e^b S'k
  void solve_matched(const Group& in, Index head, View<const float> weights, View<float> x,
                     const Kernels& k) const;
  // Folds the chunk's first `rows` rows.
  void fold_head(const Bound& bound, Index head, Index rows, const Kernels& k) const;

  Sizes sizes_;
  StateShape state_;
  Index stride_ = 0;  // of the open columns
  Index first_field_ = 0;
};

}  // namespace plait
