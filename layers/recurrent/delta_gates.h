// Decay and strength of the gated delta rule (Yang, Kautz, Hatamizadeh, arXiv 2412.06464), from the layer's
// input:
//   g = -exp(a_log) softplus(a x + dt_bias),  beta = sigmoid(b x), twice that with negative eigenvalues
#pragma once

#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/kernels/linear.h"

namespace plait {

class DeltaGates {
 public:
  // Tensors a, beta [heads, in], a_log, dt_bias [heads].
  DeltaGates(const Parameters& parameters, bool negative_eigenvalues);

  Index heads() const { return beta_.out(); }
  // x [rows, in], g, beta [rows, heads]
  void run(View<const float> x, View<float> g, View<float> beta, const Compute& compute) const;

 private:
  Linear a_, beta_;
  std::vector<float> rate_, step_bias_;  // -exp(a_log), dt_bias
  float strength_ = 1;                   // the largest beta
};

}  // namespace plait
