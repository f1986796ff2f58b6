// Queries and keys by structured matrices, for the scores bilinear_mlr and bilinear_btt (score.md).
#pragma once

#include <array>
#include <vector>

#include "layers/reference/projection.h"
#include "runtime/base/tensor.h"
#include "runtime/kernels/linear.h"

namespace plait {

// A block-diagonal product: block b of y is W_b times block b of x.
class BlockLinear {
 public:
  explicit BlockLinear(const Tensor& weight);  // [blocks, out, in]

  Index out() const { return static_cast<Index>(blocks_.size()) * blocks_.front().out(); }
  // x [rows, blocks * in], y [rows, out()]
  void run(View<const float> x, View<float> y, const Compute& compute) const;

 private:
  std::vector<Linear> blocks_;
};

class StructuredQk {
 public:
  StructuredQk(const ProjectionSettings& settings, const Parameters& parameters);

  // x [rows, width] -> q [rows, num_heads * head_dim], k [rows, num_kv_heads * head_dim]
  void queries(View<const float> x, View<float> q, const Compute& compute) const;
  void keys(View<const float> x, View<float> k, const Compute& compute) const;

 private:
  // Of the columns of a product, by one of their three indices: how many, and how far apart in what comes
  // next.
  struct Spread {
    Index count, stride;
  };
  struct Step {
    BlockLinear product;
    std::array<Spread, 3> columns;  // the slowest index of the product's columns first
    Index first;                    // where its column 0 goes
  };
  void add_train(const BlockTrainKeys& train, const Parameters& parameters);
  static void run(const Step& step, View<const float> x, View<float> y, const Compute& compute);

  Index heads_, head_dim_;
  // Levels: each fills its own columns. Train: one after the other, and no queries.
  std::vector<Step> queries_, keys_;
  bool train_ = false;
};

}  // namespace plait
