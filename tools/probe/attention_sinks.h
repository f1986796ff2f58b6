// Sink statistics of every head on a text (arXiv 2606.08105): which key takes the mass, whether its value is
// small (a head that does nothing) or large and the same for all rows (a broadcast).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/probe/attention_reading.h"
#include "tools/probe/probe.h"

namespace plait::probe {

struct SinkStatistics {
  Index sink = 0;          // the key with the largest mean weight
  double mass = 0;         // that mean
  double routed = 0;       // share of rows that give it at least a half
  double least = 0;        // its smallest weight
  double ratio_head = 0;   // |v_s| over the mean of the other keys' |v_j|
  double ratio_out = 0;    // the same behind the output projection
  double stable_rank = 0;  // |U|_F^2 / sigma_1(U)^2 of the rows' outputs U = A u
};

enum class SinkKind { none, nop, broadcast, other };  // other: a sink event that is neither
const char* name_of(SinkKind kind);

// The paper's definitions are for maps where every row sees every key. In a causal map a key's mean runs over
// the rows that may see it, and the sink is sought among the keys of the first half. Rows before `skip` are
// left out (few keys make a sink of anything).
// weights [tokens, tokens]; values [tokens, value_width]; outputs [tokens, width], W_O v per key
SinkStatistics sink_statistics(const std::vector<double>& weights, const std::vector<double>& values,
                               const std::vector<double>& outputs, Index tokens, Index skip, bool causal);
// Event: routed >= 0.9. NOP: ratio_out <= 0.2. Broadcast: ratio_out >= 0.5 and stable_rank <= 1.5.
SinkKind sink_kind(const SinkStatistics& statistics);

// The strict event: least >= 1 - eps. Above eps 1/2 a head may have several such keys.
bool strict_sink(const SinkStatistics& statistics, double eps);
// As the authors' count tables have it: sinks by the strict event of this eps, or routed >= 0.9 without one;
// NOP: ratio_head <= 0.2. Broadcast: ratio_head >= 0.5. No rank test.
struct SinkCounts {
  Index sinks = 0, nops = 0, broadcasts = 0;
};
SinkCounts count_sinks(std::span<const SinkStatistics> heads, std::optional<double> eps);

// |U|_F^2 over the largest eigenvalue of U U', of rows U [count, width]; 0 for rows of zeros.
double stable_rank(const std::vector<double>& rows, Index count);
// count |mean row|^2 over the sum of |row|^2: 1 when all rows are equal, 0 when they cancel.
double shared_energy(const std::vector<double>& rows, Index count);

class AttentionSinks final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  ReadingFlags flags_;
  std::optional<Index> skip_;
  std::vector<double> eps_ = {0.5, 0.3, 0.2, 0.1};
};

}  // namespace plait::probe
