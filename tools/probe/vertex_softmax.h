// Certified bounds of what an attention layer puts out when its logits and values are known up to intervals,
// as behind a quantised cache: the exact range of a softmax average over a box of logits (arXiv 2605.10974).
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tools/probe/attention_reading.h"
#include "tools/probe/probe.h"

namespace plait::probe {

struct Interval {
  double low = 0, high = 0;
};

// The least of sum_j c_j softmax(s)_j over low_j <= s_j <= high_j, all [n], n >= 1. Its logits are `high` for
// some keys of least c and `low` for the others, so that n + 1 candidates suffice: O(n log n).
double least_average(std::span<const double> c, std::span<const double> low, std::span<const double> high);

// The range over the box of logits and c_low_j <= c_j <= c_high_j, widened by the rounding of its own sums:
// the true range in real arithmetic lies inside.
Interval softmax_range(std::span<const double> c_low, std::span<const double> c_high,
                       std::span<const double> low, std::span<const double> high);

// What a cache keeps of keys and values, or (`error` above 0) how far every logit may be off while the values
// are exact.
struct Uncertainty {
  std::string cache = "bf16";  // bf16, f16, q8: a scale per key and head, codes -127 to 127
  double error = 0;
};

// One output row of a layer, the output's bias left out: exact, with the cache, and between which any output
// lies whose logits and values lie within the intervals.
struct OutputBounds {
  std::vector<double> exact, rounded, low, high;  // [width]; rounded is exact without a cache
  std::vector<double> hull_low, hull_high;        // from the range of every head's values alone
  double logit_reach = 0;                         // largest half-width of a logit's interval
};

// Sums over the node's chosen heads. Throws Error where no interval of q.k bounds a logit, or the readout is
// no mean.
OutputBounds bound_row(const Reading& reading, const AttentionNode& node, const Uncertainty& uncertainty,
                       Index token);

class VertexSoftmax final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  ReadingFlags flags_;
  Uncertainty uncertainty_;
  Index rows_ = 32;
};

}  // namespace plait::probe
