// Statistics of attention that say whether it keeps its tokens apart (arXiv 2604.17324): per head entropy,
// norm of the weights and stable rank of the output; per block how alike its tokens have become; per gate how
// far it is open.
#pragma once

#include <span>
#include <vector>

#include "runtime/run/recording.h"
#include "tools/probe/attention_reading.h"
#include "tools/probe/probe.h"

namespace plait::probe {

// |A|_F. At most sqrt N for N rows of weights that are not negative and sum to 1 at most (arXiv 2410.18613);
// that when every row chooses one key.
double frobenius_norm(std::span<const double> weights);

// Mean over pairs of rows [count, width] of 1 - cos: 0 when all point the same way, 1 when they are
// orthogonal. Rows of zeros have no direction and are left out; 0 for less than two others.
double pairwise_cosine_distance(std::span<const float> rows, Index count);

struct GateStatistics {
  double mean = 0;
  double closed = 0;  // share of factors below 0.1
  double open = 0;    // share above 0.9
};
GateStatistics gate_statistics(std::span<const float> factors);

class AttentionStatistics final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  void add_heads(const Reading& reading, const Common& common, Findings& found) const;
  void add_blocks(const Reading& reading, const Recording& recording, Findings& found) const;
  void add_gates(const Reading& reading, const Recording& recording, Findings& found) const;

  ReadingFlags flags_;
};

}  // namespace plait::probe
