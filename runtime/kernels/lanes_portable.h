// Sixteen floats as plain arrays: any machine. fmaf is correctly rounded with or without hardware for it.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

constexpr int kTileRows = 2, kTileVectors = 1;

struct Lanes {
  float v[16];
};
struct Mask {
  bool m[16];
};
struct Ints {
  int32_t v[16];
};

template <class To, class F>
inline To each(F f) {
  To z;
  for (int i = 0; i < 16; ++i) f(z, i);
  return z;
}

inline Lanes load(const float* p) {
  Lanes z;
  memcpy(z.v, p, sizeof z.v);
  return z;
}
inline Lanes load(const float* p, ptrdiff_t n) {
  Lanes z = {};
  memcpy(z.v, p, (size_t)n * sizeof(float));
  return z;
}
inline void store(float* p, Lanes x) { memcpy(p, x.v, sizeof x.v); }
inline void store(float* p, Lanes x, ptrdiff_t n) { memcpy(p, x.v, (size_t)n * sizeof(float)); }
inline Lanes all(float x) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = x; });
}
inline Lanes operator+(Lanes x, Lanes y) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = x.v[i] + y.v[i]; });
}
inline Lanes operator-(Lanes x, Lanes y) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = x.v[i] - y.v[i]; });
}
inline Lanes operator*(Lanes x, Lanes y) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = x.v[i] * y.v[i]; });
}
inline Lanes operator/(Lanes x, Lanes y) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = x.v[i] / y.v[i]; });
}
inline Lanes fma(Lanes x, Lanes y, Lanes w) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = __builtin_fmaf(x.v[i], y.v[i], w.v[i]); });
}
inline Lanes larger(Lanes x, Lanes y) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = x.v[i] > y.v[i] ? x.v[i] : y.v[i]; });
}
inline Lanes smaller(Lanes x, Lanes y) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = x.v[i] < y.v[i] ? x.v[i] : y.v[i]; });
}
inline Lanes root(Lanes x) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = __builtin_sqrtf(x.v[i]); });
}
inline Mask less(Lanes x, Lanes y) {
  return each<Mask>([&](Mask& z, int i) { z.m[i] = x.v[i] < y.v[i]; });
}
inline Mask equal(Lanes x, Lanes y) {
  return each<Mask>([&](Mask& z, int i) { z.m[i] = x.v[i] == y.v[i]; });
}
inline Mask first_lanes(ptrdiff_t n) {
  return each<Mask>([&](Mask& z, int i) { z.m[i] = i < n; });
}
inline Lanes select(Mask m, Lanes x, Lanes y) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = m.m[i] ? x.v[i] : y.v[i]; });
}
inline Ints bits(Lanes x) {
  Ints z;
  memcpy(z.v, x.v, sizeof z.v);
  return z;
}
inline Lanes floats(Ints x) {
  Lanes z;
  memcpy(z.v, x.v, sizeof z.v);
  return z;
}
inline Ints all_ints(int32_t x) {
  return each<Ints>([&](Ints& z, int i) { z.v[i] = x; });
}
// Wrap around like the vector instructions do.
inline Ints operator+(Ints x, Ints y) {
  return each<Ints>([&](Ints& z, int i) { z.v[i] = (int32_t)((uint32_t)x.v[i] + (uint32_t)y.v[i]); });
}
inline Ints operator-(Ints x, Ints y) {
  return each<Ints>([&](Ints& z, int i) { z.v[i] = (int32_t)((uint32_t)x.v[i] - (uint32_t)y.v[i]); });
}
inline Ints operator&(Ints x, Ints y) {
  return each<Ints>([&](Ints& z, int i) { z.v[i] = x.v[i] & y.v[i]; });
}
inline Ints operator|(Ints x, Ints y) {
  return each<Ints>([&](Ints& z, int i) { z.v[i] = x.v[i] | y.v[i]; });
}
template <int n>
inline Ints left(Ints x) {
  return each<Ints>([&](Ints& z, int i) { z.v[i] = (int32_t)((uint32_t)x.v[i] << n); });
}
template <int n>
inline Ints right(Ints x) {
  return each<Ints>([&](Ints& z, int i) { z.v[i] = x.v[i] >> n; });
}
inline Lanes to_floats(Ints x) {
  return each<Lanes>([&](Lanes& z, int i) { z.v[i] = (float)x.v[i]; });
}
inline Ints load_ints(const void* p) {
  Ints z;
  memcpy(z.v, p, sizeof z.v);
  return z;
}
// Sixteen 16-bit words, widened with zeros.
inline Ints load_halves(const uint16_t* p) {
  return each<Ints>([&](Ints& z, int i) { z.v[i] = p[i]; });
}
inline void prefetch(const void* p) { __builtin_prefetch(p); }

}  // namespace
#define PLAIT_WIDENED_PAIRS
