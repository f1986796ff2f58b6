// Settings, tensors and twin of `mesa_net` (layers/recurrent/mesa_net.md).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "layers/reference/output_gate.h"
#include "layers/reference/recurrence.h"
#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct MesaNetSettings {
  enum class Solver { cg, cholesky };
  enum class Start { zero, diagonal };
  Index width = 0, chunk = 0;
  Index num_heads = 0, head_dim = 0, value_head_dim = 0;
  Index conv = 4;  // kernel on q and k; 0 = none
  Solver solver = Solver::cg;
  Index cg_steps = 30;
  double cg_eps = 1e-5;
  Start cg_start = Start::zero;
  double cg_tolerance = 0;  // 0 = every row takes all steps
  double lambda_min = 0.25;
  OutputGate gate;
  double norm_eps = 1e-5;
};

MesaNetSettings read_mesa_net(Config& config);  // ends with config.finish()
std::vector<TensorSpec> mesa_net_tensors(const MesaNetSettings& settings);
std::shared_ptr<Twin> make_mesa_net_twin(Config& config, const Parameters& parameters);

namespace reference {

// x from (h + diag(lambda)) x = q. h [n, n] symmetric, lambda, q [n]
std::vector<double> solve_exactly(const Rows& h, std::span<const double> lambda, std::span<const double> q);
// The same by the conjugate gradient of the settings.
std::vector<double> solve_by_steps(const MesaNetSettings& settings, const Rows& h,
                                   std::span<const double> lambda, std::span<const double> q);
// The mixer's core: o [tokens, heads * value_head_dim]. q, k [tokens, heads * head_dim]; v [tokens, heads *
// value_head_dim]; g (log decays), beta [tokens, heads]; lambda [heads * head_dim]
Rows mesa_reads(const MesaNetSettings& settings, const Rows& q, const Rows& k, const Rows& v, const Rows& g,
                const Rows& beta, std::span<const double> lambda);

}  // namespace reference
}  // namespace plait
