// The table of kernels as the sources compiled per instruction set see it: C headers only, because templates
// compiled under mixed flags are merged by the linker.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/isa.h"

namespace plait {

struct bf16;
struct f16;
using Index = ptrdiff_t;

// Where the chain of a product starts.
enum class Start { zero, present };

struct Kernels {
  Isa isa;
  const char* name;  // "avx512", "avx2", "portable"

  // Products: y[r][c] = start + sum_{k < depth} x[r * ldx + k] * w[k * ldw + c], c < cols <= 32, any number
  // of rows. Columns past `cols` are neither read nor written.
  void (*panel)(Index rows, Index depth, Index cols, const float* x, Index ldx, const float* w, Index ldw,
                float* y, Index ldy, Start start);
  // As `panel` from y, row r of which is multiplied by decay[r] first: a state that decays and is written to.
  void (*panel_decayed)(Index rows, Index depth, Index cols, const float* x, Index ldx, const float* w,
                        Index ldw, const float* decay, float* y, Index ldy);
  // As `panel`, but row r takes only its first first_depth + r terms: the triangular part of a chunk or key
  // block.
  void (*panel_triangular)(Index rows, Index first_depth, Index cols, const float* x, Index ldx,
                           const float* w, Index ldw, float* y, Index ldy, Start start);
  // One row, any number of columns: y[c] = start + sum_{k < depth} x[k] * w[k * ldw + c], c < cols.
  void (*combine)(Index depth, Index cols, const float* x, const float* w, Index ldw, float* y, Start start);
  // Packed f32 panel [depth][32] as runtime/base/panel.h has it; y gets all 32 columns.
  void (*packed_f32)(Index rows, Index depth, const float* x, Index ldx, const float* w, float* y, Index ldy,
                     Start start);
  // Packed bf16 panel [depth/2][32][2] (depth even), weights widened: equals packed_f32 of the same values.
  void (*packed_bf16)(Index rows, Index depth, const float* x, Index ldx, const bf16* w, float* y, Index ldy,
                      Start start);
  // fast: activations in bf16 as well; pairs by the set's own dot product (bits differ between sets).
  void (*packed_bf16_fast)(Index rows, Index depth, const bf16* x, Index ldx, const bf16* w, float* y,
                           Index ldy, Start start);
  void (*to_bf16)(const float* x, bf16* y, Index n);  // nearest even
  // Exact; a NaN stays one.
  void (*widen_bf16)(const bf16* x, float* y, Index n);
  void (*widen_f16)(const f16* x, float* y, Index n);

  // Sums along a row.
  float (*sum)(const float* x, Index n);
  float (*sum_squares)(const float* x, Index n);
  float (*dot)(const float* x, const float* y, Index n);
  float (*maximum)(const float* x, Index n);  // -infinity when n = 0
  // lanes[i mod 16] += x[i] for i in [begin, end): a row sum that arrives in pieces.
  void (*add_to_lanes)(const float* x, Index begin, Index end, float* lanes);
  float (*sum_lanes)(const float* lanes);  // the tree over 16 lanes
  // The same of x and of its squares, which are exact in f64, in lanes of f64.
  void (*add_moments)(const float* x, Index begin, Index end, double* sums, double* squares);
  double (*sum_lanes_f64)(const double* lanes);

  // Elementwise, y[i] = f(x[i]).
  using Map = void (*)(const float* x, float* y, Index n);
  Map exp, log, log1p, sigmoid, silu, softplus, log_sigmoid, tanh, normal_cdf, gelu, gelu_tanh, relu,
      elu_plus_one;
  Map square, reciprocal, sqrt;  // IEEE division and square root, no estimates
  void (*exp_minus)(const float* x, float shift, float* y, Index n);  // exp(x[i] - shift)
  void (*add_scalar)(const float* x, float a, float* y, Index n);     // x[i] + a
  void (*scale)(const float* x, float a, float* y, Index n);          // x[i] * a
  void (*clamp)(const float* x, float low, float high, float* y, Index n);
  using Zip = void (*)(const float* x, const float* y, float* z, Index n);
  Zip add, subtract, multiply, divide, minimum;                             // z[i] = x[i] op y[i]
  void (*add_scaled)(float a, const float* x, float* y, Index n);           // y[i] = fma(a, x[i], y[i])
  void (*multiply_add)(const float* x, const float* y, float* z, Index n);  // z[i] = fma(x[i], y[i], z[i])
  // Narrowed f64: y[i] = exp(float(x[i] - shift)): decays from running sums of log decays.
  void (*exp_difference)(const double* x, double shift, float* y, Index n);      // exp(x[i] - shift)
  void (*exp_difference_from)(double from, const double* x, float* y, Index n);  // exp(from - x[i])
  // y[i] = float(y[i] + (base + slope * x[i])), all in f64; slope is 1 or -1.
  void (*add_f64)(double base, double slope, const double* x, float* y, Index n);
  // Own f64 argument reduction and polynomials, narrowed to f32; |angle| up to 2^40.
  void (*sin_cos)(const double* angle, float* sine, float* cosine, Index n);
  // Depthwise FIR of one output row: y[c] = bias[c] + sum_w taps[w][c] * x_w[c], w ascending, fma chain from
  // bias (or zero when bias is null). rows[w] points at channels of the input row for tap w; a null row is
  // left out. weights [taps][stride], the first `channels` of each row are used.
  void (*fir)(Index taps, const float* const* rows, const float* weights, Index stride, const float* bias,
              float* y, Index channels);
};

}  // namespace plait
