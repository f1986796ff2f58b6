// How far one raised logit among n equal ones lifts its weight: by exp, by powers, by other normalisers
// ("Superiority of Softmax", arXiv 2310.11685, of which only the abstract is confirmed; what is measured here
// is derived).
//
// Two rows: all n logits 0 (class 0), or one of them D (class 1). Separation = max_j |w1_j - w0_j|.
//   exp:                 the raised weight is 1 / (1 + (n - 1) e^-D), a half at D = ln(n - 1)
//   (1 + s)^p / its sum: a half at D = (n - 1)^(1/p) - 1; p = 1 is linear attention, whose separation stays
//                        below D / n
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "layers/reference/attention_options.h"
#include "tools/probe/probe.h"

namespace plait::probe {

// Weights (1 + s)^degree over their sum.
std::unique_ptr<NormaliserTwin> power_weights(double degree);

struct Peak {
  double weight = 0;  // of the raised key
  double separation = 0;
};
// n >= 2
Peak peak_of(const NormaliserTwin& normaliser, Index n, double gap);
// The gap D that lifts the weight to a half, within 1e-9 relative, by bisection; infinity where 1e12 does
// not.
double half_gap(const NormaliserTwin& normaliser, Index n);

class PeakSeparation final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  std::vector<Index> lengths_ = {16, 64, 256, 1024, 4096, 16384, 65536};
  std::vector<double> degrees_ = {1, 2, 3};
  double gap_ = 0;  // 0: ln(n - 1)
};

}  // namespace plait::probe
