// The text of every table: compiled once per instruction set, after the set's own lanes_*.h. Everything has
// internal linkage; the only export is the table (kernels_*.cc).
#pragma once

#include <math.h>
#include <string.h>

#include "runtime/kernels/table.h"

namespace {

using plait::Index;
using plait::Start;

// Products.

#if defined(__clang__)
#define PLAIT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PLAIT_UNROLL _Pragma("GCC unroll 16")
#endif

// Calls tile(Rows<R>{}, first row) for tiles of nearly equal height: twelve rows and one would cost more than
// seven and six. Every height has the same chains.
template <int R>
struct Rows {};
template <int R = kTileRows, class Tile>
inline void with_height(Index height, Index first, const Tile& tile) {
  if (height == R)
    tile(Rows<R>{}, first);
  else if constexpr (R > 1)
    with_height<R - 1>(height, first, tile);
}
template <class Tile>
inline void each_tile(Index rows, const Tile& tile) {
  const Index tiles = (rows + kTileRows - 1) / kTileRows;
  for (Index t = 0, first = 0; t < tiles; ++t) {
    const Index height = (rows - first) / (tiles - t);
    with_height(height, first, tile);
    first += height;
  }
}

// One product of f32 panels, its rows and columns left open.
struct Product {
  Index depth;
  const float* x;
  Index ldx;
  const float* w;
  Index ldw;
  float* y;
  Index ldy;
  Start start;
  const float* decay = nullptr;  // factor of each row of y before the chain, with Start::present
};

enum class Shape { rectangle, triangle };  // a triangle's row r takes depth + r terms

// R rows from `first` times V vectors of 16 columns, the accumulators in registers. `last` columns of the
// last vector count.
template <int R, int V, bool whole, Shape shape>
inline void tile(const Product& p, Index first, Index last) {
  const Index depth = shape == Shape::triangle ? p.depth + first : p.depth;
  const float *x = p.x + first * p.ldx, *w = p.w;
  float* y = p.y + first * p.ldy;
  const auto get = [=](const float* place, int v) {
    return whole || v + 1 < V ? load(place + 16 * v) : load(place + 16 * v, last);
  };
  Lanes acc[R][V], row[V];
  PLAIT_UNROLL
  for (int r = 0; r < R; ++r) PLAIT_UNROLL
  for (int v = 0; v < V; ++v) acc[r][v] = p.start == Start::zero ? all(0) : get(y + r * p.ldy, v);
  if (p.decay) {
    PLAIT_UNROLL
    for (int r = 0; r < R; ++r) PLAIT_UNROLL
    for (int v = 0; v < V; ++v) acc[r][v] = acc[r][v] * all(p.decay[first + r]);
  }
  for (Index k = 0; k < depth; ++k, w += p.ldw) {
    PLAIT_UNROLL
    for (int v = 0; v < V; ++v) row[v] = get(w, v);
    PLAIT_UNROLL
    for (int r = 0; r < R; ++r) {
      const Lanes a = all(x[r * p.ldx + k]);
      PLAIT_UNROLL
      for (int v = 0; v < V; ++v) acc[r][v] = fma(a, row[v], acc[r][v]);
    }
  }
  if (shape == Shape::triangle) {
    PLAIT_UNROLL
    for (int k = 0; k + 1 < R; ++k) {
      PLAIT_UNROLL
      for (int v = 0; v < V; ++v) row[v] = get(w + k * p.ldw, v);
      PLAIT_UNROLL
      for (int r = k + 1; r < R; ++r) {
        const Lanes a = all(x[r * p.ldx + depth + k]);
        PLAIT_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = fma(a, row[v], acc[r][v]);
      }
    }
  }
  PLAIT_UNROLL
  for (int r = 0; r < R; ++r) PLAIT_UNROLL
  for (int v = 0; v < V; ++v) {
    float* place = y + r * p.ldy + 16 * v;
    if (whole || v + 1 < V)
      store(place, acc[r][v]);
    else
      store(place, acc[r][v], last);
  }
}

// All rows of the next columns, V vectors of them; moves on.
template <int V, bool whole, Shape shape>
void tile_columns(Index rows, Product& p, Index& cols) {
  const Index width = whole ? 16 * V : cols;
  each_tile(rows, [&, last = width - 16 * (V - 1)]<int R>(Rows<R>, Index first) {
    tile<R, V, whole, shape>(p, first, last);
  });
  p.w += width;
  p.y += width;
  cols -= width;
}

// Any number of columns, in groups the set's registers hold.
template <Shape shape>
inline void columns(Index rows, Index cols, Product p) {
  while (cols >= 16 * kTileVectors) tile_columns<kTileVectors, true, shape>(rows, p, cols);
  if (kTileVectors > 1 && cols > 16) tile_columns<kTileVectors, false, shape>(rows, p, cols);
  if (cols == 16) tile_columns<1, true, shape>(rows, p, cols);
  if (cols > 0) tile_columns<1, false, shape>(rows, p, cols);
}

void panel(Index rows, Index depth, Index cols, const float* x, Index ldx, const float* w, Index ldw,
           float* y, Index ldy, Start start) {
  columns<Shape::rectangle>(rows, cols, {depth, x, ldx, w, ldw, y, ldy, start});
}

void panel_decayed(Index rows, Index depth, Index cols, const float* x, Index ldx, const float* w, Index ldw,
                   const float* decay, float* y, Index ldy) {
  columns<Shape::rectangle>(rows, cols, {depth, x, ldx, w, ldw, y, ldy, Start::present, decay});
}

void panel_triangular(Index rows, Index first_depth, Index cols, const float* x, Index ldx, const float* w,
                      Index ldw, float* y, Index ldy, Start start) {
  columns<Shape::triangle>(rows, cols, {first_depth, x, ldx, w, ldw, y, ldy, start});
}

void combine(Index depth, Index cols, const float* x, const float* w, Index ldw, float* y, Start start) {
  constexpr int kWide = kTileRows < 12 ? 4 : 8;  // enough chains to hide the latency of one
  for (; cols >= 16 * kWide; cols -= 16 * kWide, w += 16 * kWide, y += 16 * kWide)
    tile<1, kWide, true, Shape::rectangle>({depth, x, 0, w, ldw, y, 0, start}, 0, 16);
  columns<Shape::rectangle>(1, cols, {depth, x, 0, w, ldw, y, 0, start});
}

void packed_f32(Index rows, Index depth, const float* x, Index ldx, const float* w, float* y, Index ldy,
                Start start) {
  columns<Shape::rectangle>(rows, 32, {depth, x, ldx, w, 32, y, ldy, start});
}

// Pairs of bf16 [depth/2][32][2]: lane c of a vector of words holds columns c of rows k (low half) and k + 1
// (high).
inline Lanes low_half(Ints pair) { return floats(left<16>(pair)); }
inline Lanes high_half(Ints pair) { return floats(pair & all_ints((int32_t)0xffff0000)); }

template <int R, int V>
inline void widened_tile(Index depth, const float* x, Index ldx, const uint32_t* w, float* y, Index ldy,
                         Start start) {
  Lanes acc[R][V];
  PLAIT_UNROLL
  for (int r = 0; r < R; ++r) PLAIT_UNROLL
  for (int v = 0; v < V; ++v) acc[r][v] = start == Start::zero ? all(0) : load(y + r * ldy + 16 * v);
  for (Index k = 0; k < depth; k += 2, w += 32) {
    Ints pair[V];
    PLAIT_UNROLL
    for (int v = 0; v < V; ++v) pair[v] = load_ints(w + 16 * v);
    PLAIT_UNROLL
    for (int r = 0; r < R; ++r) {
      const Lanes a = all(x[r * ldx + k]);
      PLAIT_UNROLL
      for (int v = 0; v < V; ++v) acc[r][v] = fma(a, low_half(pair[v]), acc[r][v]);
    }
    if (k + 1 == depth) break;
    PLAIT_UNROLL
    for (int r = 0; r < R; ++r) {
      const Lanes a = all(x[r * ldx + k + 1]);
      PLAIT_UNROLL
      for (int v = 0; v < V; ++v) acc[r][v] = fma(a, high_half(pair[v]), acc[r][v]);
    }
  }
  PLAIT_UNROLL
  for (int r = 0; r < R; ++r) PLAIT_UNROLL
  for (int v = 0; v < V; ++v) store(y + r * ldy + 16 * v, acc[r][v]);
}

void packed_bf16(Index rows, Index depth, const float* x, Index ldx, const plait::bf16* weights, float* y,
                 Index ldy, Start start) {
  constexpr int V = kTileVectors;
  for (int c = 0; c < 32; c += 16 * V) {
    const uint32_t* w = (const uint32_t*)(const void*)weights + c;
    each_tile(rows, [&]<int R>(Rows<R>, Index first) {
      widened_tile<R, V>(depth, x + first * ldx, ldx, w, y + first * ldy + c, ldy, start);
    });
  }
}

#ifdef PLAIT_WIDENED_PAIRS
// No dot product of pairs in this set: two fused multiply-adds, the even term first.
inline Lanes pair_product(Lanes acc, uint32_t x, Ints w) {
  const uint32_t low = x << 16, high = x & 0xffff0000u;
  float a, b;
  memcpy(&a, &low, sizeof a);
  memcpy(&b, &high, sizeof b);
  return fma(all(b), high_half(w), fma(all(a), low_half(w), acc));
}
#endif

template <int R, int V>
inline void pair_tile(Index pairs, const uint16_t* x, Index ldx, const uint32_t* w, float* y, Index ldy,
                      Start start) {
  Lanes acc[R][V];
  PLAIT_UNROLL
  for (int r = 0; r < R; ++r) PLAIT_UNROLL
  for (int v = 0; v < V; ++v) acc[r][v] = start == Start::zero ? all(0) : load(y + r * ldy + 16 * v);
  for (Index k = 0; k < pairs; ++k, w += 32) {
    Ints pair[V];
    PLAIT_UNROLL
    for (int v = 0; v < V; ++v) pair[v] = load_ints(w + 16 * v);
    prefetch(w + 32 * 16);
    if (V > 1) prefetch(w + 32 * 16 + 16);
    PLAIT_UNROLL
    for (int r = 0; r < R; ++r) {
      uint32_t a;
      memcpy(&a, x + r * ldx + 2 * k, sizeof a);
      PLAIT_UNROLL
      for (int v = 0; v < V; ++v) acc[r][v] = pair_product(acc[r][v], a, pair[v]);
    }
  }
  PLAIT_UNROLL
  for (int r = 0; r < R; ++r) PLAIT_UNROLL
  for (int v = 0; v < V; ++v) store(y + r * ldy + 16 * v, acc[r][v]);
}

void packed_bf16_fast(Index rows, Index depth, const plait::bf16* activations, Index ldx,
                      const plait::bf16* weights, float* y, Index ldy, Start start) {
  constexpr int V = kTileVectors;
  const uint16_t* x = (const uint16_t*)(const void*)activations;
  for (int c = 0; c < 32; c += 16 * V) {
    const uint32_t* w = (const uint32_t*)(const void*)weights + c;
    each_tile(rows, [&]<int R>(Rows<R>, Index first) {
      pair_tile<R, V>(depth / 2, x + first * ldx, ldx, w, y + first * ldy + c, ldy, start);
    });
  }
}

void to_bf16(const float* x, plait::bf16* half, Index n) {
  uint16_t* y = (uint16_t*)(void*)half;
  for (Index i = 0; i < n; ++i) {
    uint32_t u;
    memcpy(&u, x + i, sizeof u);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, nan = (u >> 16) | 0x40u;
    y[i] = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
  }
}

void widen_bf16(const plait::bf16* half, float* y, Index n) {
  const uint16_t* x = (const uint16_t*)(const void*)half;
  for (Index i = 0; i + 16 <= n; i += 16) store(y + i, floats(left<16>(load_halves(x + i))));
  if (n % 16 == 0) return;
  const Index whole = n - n % 16;
  uint16_t last[16] = {};
  memcpy(last, x + whole, (size_t)(n % 16) * sizeof *x);
  store(y + whole, floats(left<16>(load_halves(last))), n % 16);
}

// Exponent and mantissa in f32's places, times 2^112: subnormals come out right as well. What is past the
// largest f16 then is infinite or no number.
inline Lanes widened_f16(const uint16_t* x) {
  const Ints half = load_halves(x), sign = left<16>(half & all_ints(0x8000));
  const Ints magnitude = left<13>(half & all_ints(0x7fff));
  const Lanes finite = floats(magnitude) * all(0x1p112f);
  const Lanes special = floats(magnitude | all_ints(0x7f800000));
  return floats(bits(select(less(finite, all(65536.0f)), finite, special)) | sign);
}

void widen_f16(const plait::f16* half, float* y, Index n) {
  const uint16_t* x = (const uint16_t*)(const void*)half;
  for (Index i = 0; i + 16 <= n; i += 16) store(y + i, widened_f16(x + i));
  if (n % 16 == 0) return;
  const Index whole = n - n % 16;
  uint16_t last[16] = {};
  memcpy(last, x + whole, (size_t)(n % 16) * sizeof *x);
  store(y + whole, widened_f16(last), n % 16);
}

// Sums along a row.

template <class T>
inline T lanes_tree(const T* lanes) {
  T t[16];
  memcpy(t, lanes, sizeof t);
  for (int width = 8; width >= 1; width /= 2)
    for (int l = 0; l < width; ++l) t[l] = t[l] + t[l + width];
  return t[0];
}
float sum_lanes(const float* lanes) { return lanes_tree(lanes); }
double sum_lanes_f64(const double* lanes) { return lanes_tree(lanes); }

inline float tree(Lanes a) {
  float t[16];
  store(t, a);
  return sum_lanes(t);
}

// acc = step(acc, index, count) over groups of 16. A lane past the end keeps what it has: adding +0 would
// clear the sign of a -0.
template <class Step>
inline float fold(Index n, Step step) {
  Lanes acc = all(0);
  Index i = 0;
  for (; i + 16 <= n; i += 16) acc = step(acc, i, (Index)16);
  if (i < n) acc = select(first_lanes(n - i), step(acc, i, n - i), acc);
  return tree(acc);
}

inline Lanes take(const float* p, Index n) { return n == 16 ? load(p) : load(p, n); }

float sum(const float* x, Index n) {
  return fold(n, [=](Lanes acc, Index i, Index count) { return acc + take(x + i, count); });
}
float sum_squares(const float* x, Index n) {
  return fold(n, [=](Lanes acc, Index i, Index count) {
    const Lanes a = take(x + i, count);
    return fma(a, a, acc);
  });
}
float dot(const float* x, const float* y, Index n) {
  return fold(
      n, [=](Lanes acc, Index i, Index count) { return fma(take(x + i, count), take(y + i, count), acc); });
}

float maximum(const float* x, Index n) {
  const float lowest = -__builtin_inff();
  Lanes acc = all(lowest);
  Index i = 0;
  for (; i + 16 <= n; i += 16) acc = larger(acc, load(x + i));
  if (i < n) acc = select(first_lanes(n - i), larger(acc, load(x + i, n - i)), acc);
  float t[16];
  store(t, acc);
  for (int width = 8; width >= 1; width /= 2)
    for (int l = 0; l < width; ++l) t[l] = t[l] > t[l + width] ? t[l] : t[l + width];
  return t[0];
}

void add_to_lanes(const float* x, Index begin, Index end, float* lanes) {
  Index i = begin;
  for (; i < end && i % 16 != 0; ++i) lanes[i % 16] += x[i];
  if (i + 16 <= end) {
    Lanes acc = load(lanes);
    for (; i + 16 <= end; i += 16) acc = acc + load(x + i);
    store(lanes, acc);
  }
  for (; i < end; ++i) lanes[i % 16] += x[i];
}

void add_moments(const float* x, Index begin, Index end, double* sums, double* squares) {
  Index i = begin;
  const auto add = [&] {
    const double a = (double)x[i];
    sums[i % 16] += a;
    squares[i % 16] += a * a;
  };
  for (; i < end && i % 16 != 0; ++i) add();
  if (i + 16 <= end) {
    double s[16], q[16];
    memcpy(s, sums, sizeof s);
    memcpy(q, squares, sizeof q);
    for (; i + 16 <= end; i += 16)
      for (Index l = 0; l < 16; ++l) {
        const double a = (double)x[i + l];
        s[l] += a;
        q[l] += a * a;
      }
    memcpy(sums, s, sizeof s);
    memcpy(squares, q, sizeof q);
  }
  for (; i < end; ++i) add();
}

// Elementary functions.

constexpr float kLog2e = 1.44269504089f;
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440055e-4f;  // high part exact times 2^9
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer

inline Lanes power_of_two(Ints n) { return floats(left<23>(n + all_ints(127))); }
inline Lanes absolute(Lanes x) { return floats(bits(x) & all_ints(0x7fffffff)); }

// exp(x) - 1 = 2^n * p + (2^n - 1) with p = exp(r) - 1, |r| <= ln 2 / 2, from its Taylor series to r^7
// (remainder below a twentieth of an ulp).
struct Reduced {
  Ints n;
  Lanes p;
};

inline Reduced reduce(Lanes x) {
  const Lanes shifted = fma(x, all(kLog2e), all(kRound));
  const Lanes n = shifted - all(kRound);
  Lanes r = fma(n, all(-kLn2High), x);
  r = fma(n, all(-kLn2Low), r);
  Lanes q = all(1.0f / 5040);
  q = fma(q, r, all(1.0f / 720));
  q = fma(q, r, all(1.0f / 120));
  q = fma(q, r, all(1.0f / 24));
  q = fma(q, r, all(1.0f / 6));
  q = fma(q, r, all(0.5f));
  return {bits(shifted) - bits(all(kRound)), fma(q, r * r, r)};
}

// The scale in two factors, so that results below the normal range round once more instead of vanishing.
inline Lanes exp_of(Lanes x) {
  const Lanes inside = smaller(all(100.0f), larger(all(-110.0f), x));
  const Reduced e = reduce(inside);
  const Ints half = right<1>(e.n);
  return (all(1) + e.p) * power_of_two(half) * power_of_two(e.n - half);
}

// log(m 2^e), m in [sqrt(1/2), sqrt(2)): f = m - 1, s = f / (2 + f), log(1 + f) = 2 s + s R(s^2), the atanh
// series.
inline Lanes log_of(Lanes x) {
  const Mask tiny = less(x, all(1.17549435e-38f));
  const Lanes scaled = select(tiny, x * all(8388608.0f), x);
  const Ints word = bits(scaled);
  const Ints exponent = right<23>(word - all_ints(0x3f3504f3));
  const Lanes m = floats(word - left<23>(exponent));
  const Lanes e = to_floats(exponent) - select(tiny, all(23.0f), all(0.0f));
  const Lanes f = m - all(1);
  const Lanes s = f / (all(2) + f), z = s * s;
  Lanes series = all(2.0f / 11);
  series = fma(series, z, all(2.0f / 9));
  series = fma(series, z, all(2.0f / 7));
  series = fma(series, z, all(2.0f / 5));
  series = fma(series, z, all(2.0f / 3));
  const Lanes square = all(0.5f) * f * f;
  const Lanes low = fma(e, all(kLn2Low), s * fma(z, series, square));
  const Lanes value = fma(e, all(kLn2High), f - (square - low));
  const Lanes infinity = all(__builtin_inff());
  Lanes special = select(less(x, all(0)), all(__builtin_nanf("")), value);
  special = select(equal(x, all(0)), all(-__builtin_inff()), special);
  special = select(equal(x, infinity), infinity, special);
  return select(equal(x, x), special, x);
}

// log(1 + y), 0 <= y <= 1: the logarithm of the rounded sum plus what the sum lost.
inline Lanes log1p_of(Lanes y) {
  const Lanes u = all(1) + y;
  return log_of(u) + (y - (u - all(1))) / u;
}

// The same for any y > -1: from 2^24 on nothing is lost, and at -1 there is nothing to divide by.
inline Lanes log1p_map_of(Lanes y) {
  const Lanes u = all(1) + y;
  return select(less(u, all(0x1p24f)), select(less(all(0), u), log1p_of(y), log_of(u)), log_of(u));
}

inline Lanes sigmoid_of(Lanes x) {
  const Lanes e = exp_of(all(0) - absolute(x)), d = all(1) + e;
  return select(less(x, all(0)), e, all(1)) / d;
}
inline Lanes silu_of(Lanes x) { return x * sigmoid_of(x); }
// log(1 + y) with y = e^-|x|, s = y / (2 + y) <= 1/3: 2 atanh(s) = 2 s + s R(s^2), where 2 s = y - s y. The
// series to s^15 leaves out less than 2e-9 of it.
inline Lanes log1p_exp_of(Lanes x) {
  const Lanes y = exp_of(all(0) - absolute(x));
  const Lanes s = y / (all(2) + y), z = s * s;
  Lanes series = all(2.0f / 15);
  const float terms[] = {2.0f / 13, 2.0f / 11, 2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3};
  for (float c : terms) series = fma(series, z, all(c));
  return fma(s, fma(z, series, all(0) - y), y);
}
inline Lanes softplus_of(Lanes x) {
  const Lanes y = larger(x, all(0)) + log1p_exp_of(x);
  return select(less(all(20), x), x, select(equal(x, x), y, x));
}
inline Lanes log_sigmoid_of(Lanes x) { return select(equal(x, x), smaller(x, all(0)) - log1p_exp_of(x), x); }

// tanh(x) = m / (m + 2), m = exp(2 |x|) - 1 without cancellation; from |x| = 10 on it is 1.
inline Lanes tanh_of(Lanes x) {
  const Reduced e = reduce(smaller(all(20), absolute(x) + absolute(x)));
  const Lanes scale = power_of_two(e.n);
  const Lanes m = fma(scale, e.p, scale - all(1));
  const Lanes t = floats(bits(m / (m + all(2))) | (bits(x) & all_ints((int32_t)0x80000000)));
  return select(equal(x, x), t, x);
}

// Phi(x), the normal distribution. Its tail is exp(-a^2 / 2) t P(t), t = 1 / (1 + 0.3 a), a = |x|, with P
// fitted for the smallest relative error up to a = 15. What rounding a^2 loses is put back, or the tail would
// be wrong by a^2 times as much.
inline Lanes normal_cdf_of(Lanes x) {
  const Lanes a = smaller(all(20), absolute(x)), square = a * a, lost = fma(a, a, all(0) - square);
  const Lanes e = exp_of(all(-0.5f) * square), corrected = fma(e, all(-0.5f) * lost, e);
  const Lanes t = all(1) / fma(a, all(0.3f), all(1));
  Lanes p = all(-0.020628713f);
  const float series[] = {0.11246507f,  -0.22828542f, 0.1918841f,  -0.07950981f, 0.09620525f,
                          0.078372113f, 0.11023937f,  0.11957131f, 0.119686715f};
  for (float c : series) p = fma(p, t, all(c));
  const Lanes tail = corrected * (t * p);
  return select(less(x, all(0)), tail, all(1) - tail);
}
inline Lanes gelu_of(Lanes x) { return x * normal_cdf_of(x); }
// x (1 + tanh u) / 2 = x sigmoid(2 u)
inline Lanes gelu_tanh_of(Lanes x) {
  const Lanes u = all(0.79788456f) * fma(all(0.044715f) * x * x, x, x);
  return x * sigmoid_of(u + u);
}
inline Lanes relu_of(Lanes x) { return larger(all(0), x); }
inline Lanes elu_plus_one_of(Lanes x) { return select(less(x, all(0)), exp_of(x), x + all(1)); }
inline Lanes square_of(Lanes x) { return x * x; }
inline Lanes reciprocal_of(Lanes x) { return all(1) / x; }
inline Lanes root_of(Lanes x) { return root(x); }

// Elementwise.

template <class F>
inline void each_lane(Index n, F f) {
  Index i = 0;
  for (; i + 16 <= n; i += 16) f(i, (Index)16);
  if (i < n) f(i, n - i);
}
inline void put(float* p, Lanes a, Index n) {
  if (n == 16)
    store(p, a);
  else
    store(p, a, n);
}

template <Lanes (*f)(Lanes)>
void map(const float* x, float* y, Index n) {
  each_lane(n, [=](Index i, Index count) { put(y + i, f(take(x + i, count)), count); });
}

void exp_minus(const float* x, float shift, float* y, Index n) {
  each_lane(n, [=](Index i, Index count) { put(y + i, exp_of(take(x + i, count) - all(shift)), count); });
}
void add_scalar(const float* x, float a, float* y, Index n) {
  each_lane(n, [=](Index i, Index count) { put(y + i, take(x + i, count) + all(a), count); });
}
void scale(const float* x, float a, float* y, Index n) {
  each_lane(n, [=](Index i, Index count) { put(y + i, take(x + i, count) * all(a), count); });
}
void clamp(const float* x, float low, float high, float* y, Index n) {
  each_lane(n, [=](Index i, Index count) {
    put(y + i, smaller(all(high), larger(all(low), take(x + i, count))), count);
  });
}

inline Lanes plus(Lanes a, Lanes b) { return a + b; }
inline Lanes minus(Lanes a, Lanes b) { return a - b; }
inline Lanes times(Lanes a, Lanes b) { return a * b; }
inline Lanes over(Lanes a, Lanes b) { return a / b; }
inline Lanes least(Lanes a, Lanes b) { return smaller(a, b); }

template <Lanes (*f)(Lanes, Lanes)>
void zip(const float* x, const float* y, float* z, Index n) {
  each_lane(n, [=](Index i, Index count) { put(z + i, f(take(x + i, count), take(y + i, count)), count); });
}

void add_scaled(float a, const float* x, float* y, Index n) {
  each_lane(n, [=](Index i, Index count) {
    put(y + i, fma(all(a), take(x + i, count), take(y + i, count)), count);
  });
}
void multiply_add(const float* x, const float* y, float* z, Index n) {
  each_lane(n, [=](Index i, Index count) {
    put(z + i, fma(take(x + i, count), take(y + i, count), take(z + i, count)), count);
  });
}

void exp_difference(const double* x, double shift, float* y, Index n) {
  each_lane(n, [=](Index i, Index count) {
    float t[16] = {};
    for (Index l = 0; l < count; ++l) t[l] = (float)(x[i + l] - shift);
    put(y + i, exp_of(load(t)), count);
  });
}
void exp_difference_from(double from, const double* x, float* y, Index n) {
  each_lane(n, [=](Index i, Index count) {
    float t[16] = {};
    for (Index l = 0; l < count; ++l) t[l] = (float)(from - x[i + l]);
    put(y + i, exp_of(load(t)), count);
  });
}
void add_f64(double base, double slope, const double* x, float* y, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = (float)((double)y[i] + (base + slope * x[i]));
}

// c0 + z (c1 + z (...)): no loop inside, so that a loop over elements can be vectorised.
inline double polynomial(double, double c0) { return c0; }
template <class... Rest>
inline double polynomial(double z, double c0, Rest... rest) {
  return __builtin_fma(polynomial(z, rest...), z, c0);
}

// Taylor series to r^17 and r^16 on |r| <= pi / 4: remainders below 1e-16.
inline double sine_of(double r) {
  const double z = r * r;
  const double s = polynomial(z, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800,
                              1.0 / 6227020800, -1.0 / 1307674368000, 1.0 / 355687428096000);
  return __builtin_fma(s * z, r, r);
}
inline double cosine_of(double r) {
  return polynomial(r * r, 1.0, -0.5, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
                    -1.0 / 87178291200, 1.0 / 20922789888000);
}

inline uint64_t bits_of(double x) {
  uint64_t word;
  memcpy(&word, &x, sizeof word);
  return word;
}
// The sine of r + quadrant * pi / 2 from both of r. By bits instead of branches, so that the loop over
// elements can be vectorised: an odd quadrant exchanges sine and cosine, the upper two change the sign.
inline float in_quadrant(uint64_t quadrant, double s, double c) {
  const uint64_t odd = 0 - (quadrant & 1);
  const uint64_t word = ((bits_of(s) & ~odd) | (bits_of(c) & odd)) ^ (quadrant >> 1) << 63;
  double x;
  memcpy(&x, &word, sizeof x);
  return (float)x;
}

void sin_cos(const double* angle, float* sine, float* cosine, Index n) {
  constexpr double kTwoOverPi = 0.63661977236758134308, kShift = 6755399441055744.0;  // 1.5 * 2^52 rounds
  constexpr double kHigh = 1.57079632679489655800e+00, kMiddle = 6.12323399573676603587e-17,
                   kLow = -1.49738490485916983692e-33;  // pi / 2 in three parts
  for (Index i = 0; i < n; ++i) {
    const double shifted = __builtin_fma(angle[i], kTwoOverPi, kShift), turns = shifted - kShift;
    double r = __builtin_fma(-turns, kHigh, angle[i]);
    r = __builtin_fma(-turns, kMiddle, r);
    r = __builtin_fma(-turns, kLow, r);
    const uint64_t quadrant = bits_of(shifted);
    const double s = sine_of(r), c = cosine_of(r);
    sine[i] = in_quadrant(quadrant, s, c);
    cosine[i] = in_quadrant(quadrant + 1, s, c);
  }
}

void fir(Index taps, const float* const* rows, const float* weights, Index stride, const float* bias,
         float* y, Index channels) {
  each_lane(channels, [=](Index i, Index count) {
    Lanes acc = bias ? take(bias + i, count) : all(0);
    for (Index w = 0; w < taps; ++w)
      if (rows[w]) acc = fma(take(weights + w * stride + i, count), take(rows[w] + i, count), acc);
    put(y + i, acc, count);
  });
}

constexpr plait::Kernels make_table(plait::Isa isa, const char* name) {
  plait::Kernels k = {};
  k.isa = isa;
  k.name = name;
  k.panel = panel;
  k.panel_decayed = panel_decayed;
  k.panel_triangular = panel_triangular;
  k.combine = combine;
  k.packed_f32 = packed_f32;
  k.packed_bf16 = packed_bf16;
  k.packed_bf16_fast = packed_bf16_fast;
  k.to_bf16 = to_bf16;
  k.widen_bf16 = widen_bf16;
  k.widen_f16 = widen_f16;
  k.sum = sum;
  k.sum_squares = sum_squares;
  k.dot = dot;
  k.maximum = maximum;
  k.add_to_lanes = add_to_lanes;
  k.sum_lanes = sum_lanes;
  k.add_moments = add_moments;
  k.sum_lanes_f64 = sum_lanes_f64;
  k.exp = map<exp_of>;
  k.log = map<log_of>;
  k.log1p = map<log1p_map_of>;
  k.sigmoid = map<sigmoid_of>;
  k.silu = map<silu_of>;
  k.softplus = map<softplus_of>;
  k.log_sigmoid = map<log_sigmoid_of>;
  k.tanh = map<tanh_of>;
  k.normal_cdf = map<normal_cdf_of>;
  k.gelu = map<gelu_of>;
  k.gelu_tanh = map<gelu_tanh_of>;
  k.relu = map<relu_of>;
  k.elu_plus_one = map<elu_plus_one_of>;
  k.square = map<square_of>;
  k.reciprocal = map<reciprocal_of>;
  k.sqrt = map<root_of>;
  k.exp_minus = exp_minus;
  k.add_scalar = add_scalar;
  k.scale = scale;
  k.clamp = clamp;
  k.add = zip<plus>;
  k.subtract = zip<minus>;
  k.multiply = zip<times>;
  k.divide = zip<over>;
  k.minimum = zip<least>;
  k.add_scaled = add_scaled;
  k.multiply_add = multiply_add;
  k.exp_difference = exp_difference;
  k.exp_difference_from = exp_difference_from;
  k.add_f64 = add_f64;
  k.sin_cos = sin_cos;
  k.fir = fir;
  return k;
}

}  // namespace
