#include "layers/attention/sketch.h"

#include <cmath>

#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {

using Settings = PolysketchAttentionSettings;

Sketch::Sketch(const Settings& settings, const Parameters& parameters) : s_(settings) {
  if (s_.shared_norm()) q_norm_ = k_norm_ = norm_of(parameters, "qk_norm");
  if (s_.separate_norms()) {
    q_norm_ = norm_of(parameters, "q_norm");
    k_norm_ = norm_of(parameters, "k_norm");
  }
  if (s_.sketch == Settings::Sketch::random)
    for (const char* name : {"g1", "g2"}) random_.emplace_back(parameters.tensor(name));
  if (s_.sketch == Settings::Sketch::learned)
    for (const std::string branch : {"branch1", "branch2"})
      for (const std::string level : {"_1", "_2"})
        levels_.push_back({norm_of(parameters, branch + "_norm" + level),
                           Linear(parameters.tensor(branch + "_up" + level)),
                           Linear(parameters.tensor(branch + "_down" + level))});
}

Sketch::Norm Sketch::norm_of(const Parameters& parameters, const std::string& name) {
  return {to_float(parameters.tensor(name)), to_float(parameters.tensor(name + "_bias"))};
}

void Sketch::normalise(View<float> x, const Norm& norm, const Compute& compute) const {
  if (norm.gain.empty()) return;
  layer_norm(x, static_cast<Index>(norm.gain.size()), 1e-5f, norm.gain, norm.bias, x, compute);
}

void Sketch::run(std::span<const Segment> segments, const Projected& rows, const PolynomialRows& to,
                 const Compute& compute) const {
  for_each_block(segments, [&](Index first, Index count) {
    const View<float> q = rows.q.slice_rows(first, count), k = rows.k.slice_rows(first, count);
    const bool raw = s_.sketch == Settings::Sketch::learned;  // its networks bring their own norms
    if (raw) {
      sketch(q, to.q.slice_rows(first, count), compute);
      sketch(k, to.k.slice_rows(first, count), compute);
    }
    normalise(q, q_norm_, compute);
    normalise(k, k_norm_, compute);
    if (raw || s_.sketch == Settings::Sketch::none) return;
    sketch(q, to.q.slice_rows(first, count), compute);
    sketch(k, to.k.slice_rows(first, count), compute);
  });
}

void Sketch::sketch(View<const float> x, View<float> y, const Compute& compute) const {
  const Index d = s_.projection.head_dim, r = s_.size;
  for (Index h = 0; h < x.cols / d; ++h) {
    const View<const float> head = x.slice_cols(h * d, d);
    if (random_.empty())
      learned(head, y.slice_cols(h * r, r), compute);
    else
      random(head, y.slice_cols(h * r, r), compute);
  }
}

// (x G1) (x G2) / r, one head
void Sketch::random(View<const float> x, View<float> y, const Compute& compute) const {
  Arena::Scope scope(scratch());
  const View<float> other = scope.rows(x.rows, s_.size);
  const Kernels& k = kernels(compute);
  random_[0].run(x, y, compute);
  random_[1].run(x, other, compute);
  zip_rows(k.multiply, y, other, y, compute);
  scale_rows(y, 1.0f / static_cast<float>(s_.size), y, compute);
}

// tanh(x1 x2 / sqrt r) sqrt r, x1 and x2 the two branches of one head
void Sketch::learned(View<const float> x, View<float> y, const Compute& compute) const {
  Arena::Scope scope(scratch());
  const Kernels& k = kernels(compute);
  const View<float> in = scope.rows(x.rows, x.cols), wide = scope.rows(x.rows, 8 * s_.size),
                    between = scope.rows(x.rows, s_.size), other = scope.rows(x.rows, s_.size);
  const auto level = [&](const Level& l, View<float> from, View<float> to) {
    normalise(from, l.norm, compute);
    l.up.run(from, wide, compute);
    map_rows(k.gelu_tanh, wide, wide, compute);
    l.down.run(wide, to, compute);
  };
  const auto branch = [&](std::size_t first, View<float> to) {
    copy_rows(x, in);
    level(levels_[first], in, between);
    level(levels_[first + 1], between, to);
  };
  branch(0, y);
  branch(2, other);
  const float root = std::sqrt(static_cast<float>(s_.size));  // IEEE: one rounding everywhere
  zip_rows(k.multiply, y, other, y, compute);
  scale_rows(y, 1.0f / root, y, compute);
  map_rows(k.tanh, y, y, compute);
  scale_rows(y, root, y, compute);
}

}  // namespace plait
