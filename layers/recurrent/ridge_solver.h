// A solver that reads the state: a ridge regression of values on keys with forgotten and weighted tokens, on
// the chunk grid:
//   H = e^g H + w k k';  S = e^g S + w k v';  o = S' x, x from (H + diag(ridge)) x = q
// (von Oswald et al., arXiv 2506.05233; layers/recurrent/mesa_net.md).
#pragma once

#include <vector>

#include "layers/recurrent/chunks.h"
#include "layers/recurrent/key_gram.h"
#include "layers/recurrent/panels.h"
#include "runtime/run/layer.h"

namespace plait {

class RidgeSolver {
 public:
  enum class Method { conjugate_gradient, cholesky };
  enum class First {
    zero,
    diagonal
  };  // where conjugate gradient begins: 0, or q over H's and ridge's diagonal
  struct Settings {
    Index heads = 0, key = 0, value = 0;  // widths of one head
    Index chunk = 0;
    Method method = Method::conjugate_gradient;
    Index steps = 0;
    float eps = 0;        // added to the denominators of conjugate gradient
    float tolerance = 0;  // a row stops once |residual| <= tolerance |q|; 0 = it takes all steps
    First first = First::zero;
    std::vector<float> ridge;  // [heads * key] > 0
  };
  // All rows of a batch; those the segments cover are read and written.
  struct Rows {
    View<const float> q;      // [rows, heads * key]
    View<const float> k;      // [rows, heads * key]
    View<const float> v;      // [rows, heads * value]
    View<const float> g;      // [rows, heads] log decay <= 0
    View<const float> write;  // [rows, heads]
    View<float> o;            // [rows, heads * value]
  };
  struct Bound {  // one sequence's fields
    float *state, *gram, *keys, *values, *strengths, *decays;
  };
  struct Past {  // the same of a chunk that is only read
    const float *state, *gram, *keys, *values, *strengths, *decays;
  };

  RidgeSolver() = default;
  // The core's fields are first_field and those after it in the layer's list.
  RidgeSolver(Settings settings, Index first_field);
  // Anchors S [heads, ceil(value / 32), key, 32] and H [heads, ceil(key / 32), key, 32]; open k, v, w, g.
  std::vector<Field> fields() const;

  void run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const;
  void fold(State& state, const Compute& compute) const;

  // For the walk over chunks.
  Index grid() const { return s_.chunk; }
  Index units() const { return s_.heads; }
  Index outputs() const { return s_.heads; }
  Bound bind(State& state) const;
  Past past(const Bound& b) const { return {b.state, b.gram, b.keys, b.values, b.strengths, b.decays}; }
  Past past(const State& state, Index boundary) const;
  void absorb(const Bound& bound, const ChunkRows& part, Index head, const Rows& rows,
              const Kernels& k) const;
  void read(const Past& past, const ChunkRows& part, Index head, const Rows& rows, const Kernels& k) const;
  void fold(const Bound& bound, Index head, const Kernels& k) const;
  void edit_anchors(const Bound& bound, const StateEdit& edit, Index head, const Kernels& k) const;

 private:
  // One head's equations (H_i + diag(ridge)) x_i = q_i for some rows of a chunk.
  struct System {
    const KeyGram& gram;
    const float* start;   // H as of the chunk's start
    const float* ridge;   // [key]
    View<const float> q;  // [rows, key]
  };
  KeyChunk keys_of(const Past& past, Index head) const {
    return {past.keys + head * s_.key * stride_, past.strengths + head * stride_,
            past.decays + head * stride_, stride_};
  }
  // y = (H + diag(ridge)) p, row by row
  void apply(const System& in, View<const float> p, View<float> y, const Kernels& k) const;
  void solve(const System& in, View<float> x, const Kernels& k) const;
  void solve_by_steps(const System& in, View<float> x, const Kernels& k) const;
  void solve_by_factors(const System& in, View<float> x, const Kernels& k) const;
  // Folds the chunk's first `rows` rows.
  void fold_head(const Bound& bound, Index head, Index rows, const Kernels& k) const;

  Settings s_;
  StateShape state_, gram_;
  Index stride_ = 0;  // of the open columns
  Index first_field_ = 0;
};

}  // namespace plait
