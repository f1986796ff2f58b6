// What a stream keeps of its past, so that a rollback further than its depth replays a bounded number of
// tokens: copies of all states at every multiple of a stride. When they outgrow their bytes the stride
// doubles and every second one goes.
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

  // grid: Model::boundary(), so that no open row is kept. budget in bytes; 0 keeps nothing.
  Boundaries(Index grid, std::size_t budget);

  // The first position after `position` where something is kept; none without a budget.
  std::optional<Index> next(Index position) const;
  // Call it at that position; elsewhere it does nothing.
  void keep(Index position, const std::vector<State>& states);
  const Boundary* last_at_or_before(Index position) const;  // null if there is none
  void drop_after(Index position);

  Index stride() const { return stride_; }
  std::size_t bytes() const { return bytes_; }
  std::span<const std::shared_ptr<const Boundary>> all() const { return kept_; }  // ascending
  // Goes on with the stride of an earlier stream; a multiple of the grid.
  void set_stride(Index stride);

 private:
  void thin();
  std::size_t budget_, bytes_ = 0;
  Index stride_;
  std::vector<std::shared_ptr<const Boundary>> kept_;
};

}  // namespace plait
