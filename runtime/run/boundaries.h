// What a stream keeps of its past, so that a rollback further than its depth replays a bounded number of
// tokens: copies of all states at every multiple of a stride. When they outgrow their bytes the stride
// doubles and every second one goes. Replaying takes tokens, too: where a stream would not keep them anyway,
// those since the first boundary count, and when they take half of the bytes the first boundary goes.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "runtime/run/state.h"

namespace plait {

struct Boundary {
  Index position;
  std::vector<State> states;  // by node
  std::size_t bytes;          // beside the running stream: full pages of logs are shared with it
};

// A value; copies share what is kept.
class Boundaries {
 public:
  // The stride a stream begins with is the least multiple of the model's boundary that is no shorter: a run
  // of the executor takes that many rows.
  static constexpr Index kShortestStride = 512;

  // grid: Model::boundary(), so that no open row is kept. budget in bytes; 0 keeps nothing. token_bytes: what
  // a token that is kept for replay counts.
  Boundaries(Index grid, std::size_t budget, std::size_t token_bytes);

  // The first position after `position` where something is kept; none without a budget.
  std::optional<Index> next(Index position) const;
  // Call it at that position; elsewhere it does nothing.
  void keep(Index position, const std::vector<State>& states);
  const Boundary* last_at_or_before(Index position) const;  // null if there is none
  void drop_after(Index position);
  // Nothing before `position` can be replayed; the stream stands at `end`.
  void drop_before(Index position, Index end);

  // The tokens from here on are wanted for replay: 0, the first boundary after some went, or the stream's
  // position if none is left.
  Index begin() const { return begin_; }
  Index stride() const { return stride_; }
  std::size_t bytes() const { return bytes_; }                                    // of the states
  std::span<const std::shared_ptr<const Boundary>> all() const { return kept_; }  // ascending
  // Goes on with the stride of an earlier stream; a multiple of the grid.
  void set_stride(Index stride);

 private:
  void thin();
  std::size_t budget_, token_bytes_, bytes_ = 0;
  Index stride_, begin_ = 0;
  std::vector<std::shared_ptr<const Boundary>> kept_;
};

}  // namespace plait
