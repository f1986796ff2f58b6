#include "runtime/kernels/rowwise.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "runtime/base/arena.h"
#include "runtime/base/parallel.h"

namespace plait {
namespace {

// Below this many elements a block is not worth waking a second thread.
constexpr Index kWorthThreads = 1 << 15;

template <class Body>
void each_row(Index rows, Index cols, const Compute& compute, Body&& body) {
  constexpr Index kGroup = 16;
  const int threads = rows * cols >= kWorthThreads ? compute.threads : 1;
  parallel_for(threads, ceil_div(rows, kGroup), [&](Index group) {
    for (Index r = group * kGroup; r < std::min(rows, (group + 1) * kGroup); ++r) body(r);
  });
}

// Square root and division of one value, by the same IEEE instructions as everywhere else.
float inverse_root(const Kernels& k, float x) {
  k.sqrt(&x, &x, 1);
  return 1.0f / x;
}

const float* slice(std::span<const float> gain, Index first, Index group) {
  if (gain.empty()) return nullptr;
  return static_cast<Index>(gain.size()) == group ? gain.data() : gain.data() + first;
}

}  // namespace

void map_rows(Kernels::Map f, View<const float> x, View<float> y, const Compute& compute) {
  each_row(x.rows, x.cols, compute, [&](Index r) { f(x.row(r), y.row(r), x.cols); });
}

void zip_rows(Kernels::Zip f, View<const float> x, View<const float> y, View<float> z,
              const Compute& compute) {
  each_row(x.rows, x.cols, compute, [&](Index r) { f(x.row(r), y.row(r), z.row(r), x.cols); });
}

void copy_rows(View<const float> x, View<float> y) {
  for (Index r = 0; r < x.rows; ++r)
    std::memmove(y.row(r), x.row(r), static_cast<std::size_t>(x.cols) * sizeof(float));
}

void fill_rows(float value, View<float> y) {
  for (Index r = 0; r < y.rows; ++r) std::fill(y.row(r), y.row(r) + y.cols, value);
}

void scale_rows(View<const float> x, float a, View<float> y, const Compute& compute) {
  const Kernels& k = kernels(compute);
  each_row(x.rows, x.cols, compute, [&](Index r) { k.scale(x.row(r), a, y.row(r), x.cols); });
}

void add_bias(std::span<const float> bias, View<float> y, const Compute& compute) {
  assert(static_cast<Index>(bias.size()) == y.cols);
  const Kernels& k = kernels(compute);
  each_row(y.rows, y.cols, compute, [&](Index r) { k.add(y.row(r), bias.data(), y.row(r), y.cols); });
}

float rms_scale(const Kernels& k, const float* x, Index n, float eps) {
  return inverse_root(k, k.sum_squares(x, n) / static_cast<float>(n) + eps);
}

float variance_scale(const Kernels& k, const float* x, Index n, float eps) {
  Arena::Scope scope(scratch());
  float* centred = scope.take(n);
  k.add_scalar(x, -(k.sum(x, n) / static_cast<float>(n)), centred, n);
  return rms_scale(k, centred, n, eps);
}

void rms_norm(View<const float> x, Index group, float eps, std::span<const float> gain, View<float> y,
              const Compute& compute) {
  const Kernels& k = kernels(compute);
  each_row(x.rows, x.cols, compute, [&](Index r) {
    for (Index first = 0; first < x.cols; first += group) {
      const float *from = x.row(r) + first, *g = slice(gain, first, group);
      float* to = y.row(r) + first;
      k.scale(from, rms_scale(k, from, group, eps), to, group);
      if (g) k.multiply(to, g, to, group);
    }
  });
}

void layer_norm(View<const float> x, Index group, float eps, std::span<const float> gain,
                std::span<const float> bias, View<float> y, const Compute& compute) {
  const Kernels& k = kernels(compute);
  each_row(x.rows, x.cols, compute, [&](Index r) {
    for (Index first = 0; first < x.cols; first += group) {
      const float *from = x.row(r) + first, *g = slice(gain, first, group), *b = slice(bias, first, group);
      float* to = y.row(r) + first;
      k.add_scalar(from, -(k.sum(from, group) / static_cast<float>(group)), to, group);
      k.scale(to, rms_scale(k, to, group, eps), to, group);
      if (g) k.multiply(to, g, to, group);
      if (b) k.add(to, b, to, group);
    }
  });
}

void l2_norm(View<const float> x, Index group, float eps, float factor, View<float> y,
             const Compute& compute) {
  const Kernels& k = kernels(compute);
  each_row(x.rows, x.cols, compute, [&](Index r) {
    for (Index first = 0; first < x.cols; first += group) {
      const float* from = x.row(r) + first;
      float* to = y.row(r) + first;
      k.scale(from, inverse_root(k, k.sum_squares(from, group) + eps), to, group);
      if (factor != 1) k.scale(to, factor, to, group);
    }
  });
}

}  // namespace plait
