// Form D, an inner model whose weights are the state: a linear map per head, trained by gradient steps on
// mini-batches (Sun et al., arXiv 2407.04620, in the dual form, row by row; layers/recurrent/ttt_linear.md).
#pragma once

#include <span>
#include <vector>

#include "layers/recurrent/chunks.h"
#include "layers/recurrent/panels.h"
#include "runtime/run/layer.h"

namespace plait {

class InnerOptimiser {
 public:
  struct Settings {
    Index heads = 0, width = 0;     // of one head
    Index mini_batch = 0;           // the grid
    bool norm = true;               // a layer norm between the linear map and its target
    float eps = 0;                  // of that norm
    std::vector<float> gain, bias;  // of that norm [heads * width]; not read without
    std::vector<float>
        token_factors;          // [mini_batch], what row i of a mini-batch multiplies learning rates with
    std::vector<float> w0, b0;  // [heads, width, width] (row = input channel), [heads, width]
  };
  // All rows of a batch; those the segments cover are read and written.
  struct Rows {
    View<const float> q;       // [rows, heads * width]
    View<const float> k;       // [rows, heads * width]
    View<const float> target;  // [rows, heads * width] what norm(k W + b) should be
    View<const float> rate;    // [rows, heads] learning rates
    View<float> z;             // [rows, heads * width] q W_t + b_t, before the norm
  };
  struct Bound {  // one sequence's fields
    float *w, *b, *keys, *gradients, *rates;
  };

  InnerOptimiser() = default;
  // The core's fields are first_field and those after it in the layer's list.
  InnerOptimiser(Settings settings, Index first_field);
  // Anchors W [heads, ceil(width / 32), width, 32] and b [heads, width]; open k, g (gradients), lr.
  std::vector<Field> fields() const;

  void run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const;
  void fold(State& state, const Compute& compute) const;

  // For the walk over mini-batches.
  Index grid() const { return s_.mini_batch; }
  Index units() const { return s_.heads; }
  Bound bind(State& state) const;
  void absorb(const Bound& bound, const ChunkRows& part, Index head, const Rows& rows,
              const Kernels& k) const;
  void fold(const Bound& bound, Index head, const Kernels& k) const;
  void edit_anchors(const Bound& bound, const StateEdit& edit, Index head, const Kernels& k) const;

 private:
  // gradient = d/dz 1/2 |norm(z) - target|^2. All [width]; gradient may be z.
  void differentiate(Index head, const float* z, const float* target, float* gradient,
                     const Kernels& k) const;

  Settings s_;
  StateShape state_;
  Index stride_ = 0;  // of the open columns
  Index first_field_ = 0;
};

}  // namespace plait
