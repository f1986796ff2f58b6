// Attention weights of every head on a text: entropy, mass on the first token, distance looked back; the maps
// themselves as a picture.
#pragma once

#include <vector>

#include "tools/probe/attention_reading.h"
#include "tools/probe/probe.h"

namespace plait::probe {

// Means over the rows of weights a [tokens, tokens] from `first_row` on. Rows are taken as |a| over its sum,
// so that every normaliser's weights can be compared; a row of zeros is left out.
struct MapStatistics {
  double entropy = 0;         // nats
  double first = 0;           // share of the first token
  double distance = 0;        // tokens between row and key
  double effective_keys = 0;  // e^entropy, averaged over rows
};
MapStatistics map_statistics(const std::vector<double>& weights, Index tokens, Index first_row);

class AttentionMaps final : public Probe {
 public:
  void add_flags(CLI::App& verb) override;
  Findings run(const Common& common) const override;

 private:
  ReadingFlags flags_;
};

}  // namespace plait::probe
