#include "runtime/run/boundaries.h"

#include <algorithm>
#include <cassert>

#include "runtime/base/view.h"

namespace plait {

Boundaries::Boundaries(Index grid, std::size_t budget)
    : budget_(budget), stride_(round_up(kShortestStride, grid)) {}

std::optional<Index> Boundaries::next(Index position) const {
  if (budget_ == 0) return std::nullopt;
  return (position / stride_ + 1) * stride_;
}

void Boundaries::keep(Index position, const std::vector<State>& states) {
  if (budget_ == 0 || position == 0 || position % stride_ != 0) return;
  assert(kept_.empty() || kept_.back()->position < position);
  std::size_t bytes = 0;
  for (const State& state : states) bytes += state.copy_bytes();
  kept_.push_back(std::make_shared<const Boundary>(Boundary{position, states, bytes}));
  bytes_ += bytes;
  while (bytes_ > budget_) {
    stride_ *= 2;
    thin();
  }
}

void Boundaries::set_stride(Index stride) {
  stride_ = stride;
  thin();
}

void Boundaries::thin() {
  std::erase_if(kept_, [&](const auto& boundary) { return boundary->position % stride_ != 0; });
  bytes_ = 0;
  for (const auto& boundary : kept_) bytes_ += boundary->bytes;
}

const Boundary* Boundaries::last_at_or_before(Index position) const {
  const auto after = std::partition_point(
      kept_.begin(), kept_.end(), [&](const auto& boundary) { return boundary->position <= position; });
  return after == kept_.begin() ? nullptr : (after - 1)->get();
}

void Boundaries::drop_after(Index position) {
  while (!kept_.empty() && kept_.back()->position > position) {
    bytes_ -= kept_.back()->bytes;
    kept_.pop_back();
  }
}

}  // namespace plait
