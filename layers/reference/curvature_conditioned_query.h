// Settings and the double-precision form of `query`, what a recurrent mixer makes of its queries before they
// read the state (layers/recurrent/curvature_conditioned_query.md).
#pragma once

#include <optional>
#include <vector>

#include "layers/reference/recurrence.h"
#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait {

struct QuerySettings {
  // Decays per key channel as factors of C's rows and columns: half of each, all of each, rows alone.
  enum class ChannelDecay { symmetric, both, left };
  bool center = false, normalise = false;
  ChannelDecay channel_decay = ChannelDecay::symmetric;
  bool learned = false;
  std::vector<double> lambda;  // [output heads] unless learned
};

// The nested object `query`, absent = off. outputs: heads of the mixer's output; channelwise: decays per key
// channel. Does not call finish().
std::optional<QuerySettings> read_query(Config& config, Index outputs, bool channelwise);
// Adds the tensor of a learned lambda.
void add_query_tensors(const std::optional<QuerySettings>& settings, Index outputs,
                       std::vector<TensorSpec>& specs);
// lambda per output head; empty if the settings are off.
std::vector<double> query_lambdas(const std::optional<QuerySettings>& settings, const Parameters& parameters);

namespace reference {

// q~ [rows, outputs * key] of the queries that the output heads would read with, which becomes q, and the
// heads then have a query each. g as in decayed_sum().
void condition_query(const QuerySettings& settings, const std::vector<double>& lambda, Heads& heads, Rows& q,
                     const Rows& k, const Rows* g);

}  // namespace reference
}  // namespace plait
