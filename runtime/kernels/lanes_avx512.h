// Sixteen floats in one 512-bit register.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace {

constexpr int kTileRows = 12, kTileVectors = 2;

struct Lanes {
  __m512 v;
};
struct Mask {
  __mmask16 m;
};
struct Ints {
  __m512i v;
};

inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Lanes load(const float* p, ptrdiff_t n) {
  return {_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p)};
}
inline void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
inline void store(float* p, Lanes a, ptrdiff_t n) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a.v);
}
inline Lanes all(float a) { return {_mm512_set1_ps(a)}; }
inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// a > b ? a : b, so the second operand where either is not a number.
inline Lanes larger(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Lanes smaller(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Lanes root(Lanes a) { return {_mm512_sqrt_ps(a.v)}; }
inline Mask less(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask equal(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask first_lanes(ptrdiff_t n) { return {(__mmask16)((1u << n) - 1)}; }
inline Lanes select(Mask m, Lanes a, Lanes b) { return {_mm512_mask_blend_ps(m.m, b.v, a.v)}; }
inline Ints bits(Lanes a) { return {_mm512_castps_si512(a.v)}; }
inline Lanes floats(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
inline Ints all_ints(int32_t a) { return {_mm512_set1_epi32(a)}; }
inline Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Ints operator-(Ints a, Ints b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline Ints operator&(Ints a, Ints b) { return {_mm512_and_si512(a.v, b.v)}; }
inline Ints operator|(Ints a, Ints b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int n>
inline Ints left(Ints a) {
  return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
inline Ints right(Ints a) {  // arithmetic
  return {_mm512_srai_epi32(a.v, n)};
}
inline Lanes to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Ints load_ints(const void* p) { return {_mm512_loadu_si512(p)}; }
// Sixteen 16-bit words, widened with zeros.
inline Ints load_halves(const uint16_t* p) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))};
}
inline void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }

// acc + x0 * w0 + x1 * w1 over pairs of bf16, by the set's own dot product.
inline Lanes pair_product(Lanes acc, uint32_t x, Ints w) {
  return {_mm512_dpbf16_ps(acc.v, (__m512bh)_mm512_set1_epi32((int)x), (__m512bh)w.v)};
}

}  // namespace
