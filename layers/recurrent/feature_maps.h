// Feature maps phi of linear attention: the weight of a query and a key is phi(q).phi(k).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/layer.h"

namespace plait {

class FeatureMap {
 public:
  enum class Side { query, key };
  virtual ~FeatureMap() = default;
  virtual Index width() const = 0;  // of phi of one head
  // Channels u that come in front of phi in a row, with phi(q).phi(k) = (u_q.u_k)^2; 0 = none.
  virtual Index root() const { return 0; }
  Index row() const { return root() + width(); }
  // The heads of all rows the segments cover. x [rows, heads * head_dim], y [rows, heads * row()]; y does
  // not overlap x.
  virtual void run(Side side, std::span<const Segment> segments, View<const float> x, View<float> y,
                   const Compute& compute) const = 0;
};

// f(x) channel by channel; null = x itself.
std::unique_ptr<FeatureMap> elementwise_features(Index head_dim, Kernels::Map Kernels::*f);
// With u = x / d^(1/4): 1, u_i, u_i^2 / sqrt 2, u_i u_j for i < j, so that phi(q).phi(k) = 1 + t + t^2 / 2,
// t = q.k / sqrt d.
std::unique_ptr<FeatureMap> taylor_features(Index head_dim);
// u_i^2, sqrt 2 u_i u_j for i < j, so that phi(q).phi(k) = (q.k)^2 / d; with_root: u comes in front.
std::unique_ptr<FeatureMap> quadratic_features(Index head_dim, bool with_root);
// exp(z_m.u - |u|^2 / 2) for m < M, weighted by a_m; a query's features up to a factor of their own. z [M,
// head_dim], a [M], none negative. See linear_attention.md.
std::unique_ptr<FeatureMap> positive_random_features(const Tensor& z, const Tensor& a);
// f(x) times the sine, then times the cosine of pi / 2 (position + 1) / reach, so that phi(q).phi(k) =
// f(q).f(k) cos(pi / 2 (i - j) / reach).
std::unique_ptr<FeatureMap> cosine_reweighting(Index head_dim, Kernels::Map Kernels::*f, Index reach);

// Layer norms in front of a map: one of each gain.size() columns, a head or all heads.
struct FeatureNorm {
  std::vector<float> gain, bias;  // scaled_features: no bias = 0
};
std::unique_ptr<FeatureMap> normed_features(std::unique_ptr<FeatureMap> map, FeatureNorm queries,
                                            FeatureNorm keys, float eps);
// The gains and biases alone, of all heads' columns.
std::unique_ptr<FeatureMap> scaled_features(std::unique_ptr<FeatureMap> map, FeatureNorm queries,
                                            FeatureNorm keys);

}  // namespace plait
