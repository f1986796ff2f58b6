#include "runtime/run/boundaries.h"

#include <algorithm>
#include <cassert>

#include "runtime/base/view.h"

namespace plait {

Boundaries::Boundaries(Index grid, std::size_t budget, std::size_t token_bytes)
    : budget_(budget), token_bytes_(token_bytes), stride_(round_up(kShortestStride, grid)) {}

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
  for (;;) {
    const std::size_t tokens = static_cast<std::size_t>(position - begin_) * token_bytes_;
    if (bytes_ + tokens <= budget_) return;
    if (tokens > budget_ / 2) {
      drop_before(begin_ + 1, position);
    } else {
      stride_ *= 2;
      thin();
      if (begin_ > 0) drop_before(begin_, position);
    }
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
  begin_ = std::min(begin_, position);
}

void Boundaries::drop_before(Index position, Index end) {
  const auto first =
      std::find_if(kept_.begin(), kept_.end(), [&](const auto& b) { return b->position >= position; });
  for (auto gone = kept_.begin(); gone != first; ++gone) bytes_ -= (*gone)->bytes;
  kept_.erase(kept_.begin(), first);
  begin_ = kept_.empty() ? end : kept_.front()->position;
}

}  // namespace plait
