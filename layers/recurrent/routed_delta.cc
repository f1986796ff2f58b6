#include "layers/recurrent/routed_delta.h"

#include <algorithm>

#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

constexpr Index kRoute = 4;  // field, behind those of Delta

}  // namespace

RoutedDelta::RoutedDelta(const Sizes& sizes, Index first_field)
    : sizes_(sizes),
      delta_({sizes.heads, sizes.heads, sizes.key, sizes.value, sizes.block, Delta::Decay::scalar},
             first_field),
      first_field_(first_field) {}

std::vector<Field> RoutedDelta::fields() const {
  std::vector<Field> all = delta_.fields();
  all.push_back(gridded_field("route", Field::Kind::open, {sizes_.heads}, Field::Order::rows, sizes_.block));
  return all;
}

void RoutedDelta::run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const {
  ChunkWalk<RoutedDelta>(*this, segments).run(rows, compute);
}

void RoutedDelta::fold(State& state, const Compute& compute) const { fold_chunk(*this, state, compute); }

RoutedDelta::Bound RoutedDelta::bind(State& state) const {
  return {delta_.bind(state), state.open(first_field_ + kRoute)};
}

void RoutedDelta::absorb(const Bound& bound, const ChunkRows& part, Index head, const Rows& rows,
                         const Kernels& k) const {
  for (Index i = 0; i < part.rows; ++i)
    bound.routes[(part.first + i) * sizes_.heads + head] = rows.routes(part.row + i, head);
  delta_.absorb(bound.delta, part, head, rows.delta, k);
}

void RoutedDelta::fold(const Bound& bound, Index head, const Kernels& k) const {
  double sum = 0;
  for (Index i = 0; i < sizes_.block; ++i) sum += static_cast<double>(bound.routes[i * sizes_.heads + head]);
  if (routed_to_attention(sum)) {
    fill_rows(0, {bound.delta.values + head * sizes_.value, sizes_.block, sizes_.value,
                  sizes_.heads * sizes_.value});
    if (!sizes_.keeps_decays)
      std::fill_n(bound.delta.decays + head * round_up(sizes_.block, kPanel), sizes_.block, 0.0f);
  }
  delta_.fold(bound.delta, head, k);
}

void RoutedDelta::edit_anchors(const Bound& bound, const StateEdit& edit, Index head,
                               const Kernels& k) const {
  delta_.edit_anchors(bound.delta, edit, head, k);
}

}  // namespace plait
