#include "layers/recurrent/delta_gates.h"

#include "runtime/kernels/rowwise.h"

namespace plait {

DeltaGates::DeltaGates(const Parameters& parameters, bool negative_eigenvalues)
    : a_(parameters.tensor("a")),
      beta_(parameters.tensor("beta")),
      rate_(to_float(parameters.tensor("a_log"))),
      step_bias_(to_float(parameters.tensor("dt_bias"))),
      strength_(negative_eigenvalues ? 2 : 1) {
  kernels().exp(rate_.data(), rate_.data(), heads());
  for (float& rate : rate_) rate = -rate;
}

void DeltaGates::run(View<const float> x, View<float> g, View<float> beta, const Compute& compute) const {
  const Kernels& k = kernels(compute);
  a_.run(x, g, compute);
  add_bias(step_bias_, g, compute);
  map_rows(k.softplus, g, g, compute);
  for (Index r = 0; r < g.rows; ++r) k.multiply(g.row(r), rate_.data(), g.row(r), g.cols);
  beta_.run(x, beta, compute);
  map_rows(k.sigmoid, beta, beta, compute);
  if (strength_ != 1) scale_rows(beta, strength_, beta, compute);
}

}  // namespace plait
