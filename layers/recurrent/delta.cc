#include "layers/recurrent/delta.h"

#include <algorithm>

#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {

Delta::Delta(const Sizes& sizes, Index first_field)
    : sizes_(sizes),
      state_{sizes.key, sizes.value},
      stride_(round_up(sizes.chunk, kPanel)),
      first_field_(first_field) {}

std::vector<Field> Delta::fields() const {
  using Kind = Field::Kind;
  using Order = Field::Order;
  const Index grid = sizes_.chunk;
  const Shape state = {sizes_.value_heads, state_.panels(), sizes_.key, kPanel};
  std::vector<Field> all = {
      gridded_field("S", Kind::anchor, state, Order::rows, grid),
      gridded_field("k", Kind::open, {sizes_.key_heads * sizes_.key}, Order::columns, grid),
      gridded_field("x", Kind::open, {sizes_.value_heads * sizes_.value}, Order::rows, grid)};
  if (sizes_.decay == Decay::scalar)
    all.push_back(gridded_field("g", Kind::open, {sizes_.value_heads}, Order::columns, grid));
  return all;
}

Delta::Bound Delta::bind(State& state) const {
  const bool decays = sizes_.decay == Decay::scalar;
  return {state.anchor(first_field_), state.open(first_field_ + 1), state.open(first_field_ + 2),
          decays ? state.open(first_field_ + 3) : nullptr};
}

Delta::Past Delta::past(const State& state, Index boundary) const {
  const bool decays = sizes_.decay == Decay::scalar;
  return {state.past(first_field_, boundary), state.past(first_field_ + 1, boundary),
          state.past(first_field_ + 2, boundary), decays ? state.past(first_field_ + 3, boundary) : nullptr};
}

void Delta::run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const {
  ChunkWalk<Delta>(*this, segments).run(rows, compute);
}

void Delta::fold(State& state, const Compute& compute) const { fold_chunk(*this, state, compute); }

void Delta::absorb(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
                   const Kernels& k) const {
  const Index n = part.rows, width = sizes_.key;
  Arena::Scope scope(scratch());
  // Keys and queries stacked without gaps: one product reads the state once for both, and rows a power of two
  // apart in a wide batch would share cache sets.
  const View<float> inputs = scope.rows(2 * n, width);
  copy_rows(rows.k.slice_rows(part.row, n).slice_cols(key_head * width, width), inputs.slice_rows(0, n));
  copy_rows(rows.q.slice_rows(part.row, n).slice_cols(key_head * width, width), inputs.slice_rows(n, n));
  float* columns = bound.keys + key_head * width * stride_;
  write_columns(inputs.slice_rows(0, n), part.first, columns, stride_);
  const View<float> scores = scope.rows(2 * n, stride_);
  score(k, inputs, columns, stride_, part.end(), scores);
  const Group group{bound, part, rows, inputs, scores.slice_rows(0, n), scores.slice_rows(n, n)};
  const Index heads = sizes_.value_heads / sizes_.key_heads;
  for (Index h = 0; h < heads; ++h) absorb_head(group, key_head * heads + h, k);
}

void Delta::absorb_head(const Group& in, Index head, const Kernels& k) const {
  const Index n = in.part.rows, first = in.part.first, end = in.part.end();
  const Index width = sizes_.value, stride = sizes_.value_heads * width;
  Arena::Scope scope(scratch());
  double* sums = scope.take<double>(end);
  float* factors = scope.take(n);
  add_decays(in, head, sums, factors, k);

  const View<float> read = scope.rows(2 * n, width);
  read_state(k, state_, in.inputs, in.bound.state + head * state_.elements(), read);
  const View<float> solve_weights = scope.rows(n, end), read_weights = scope.rows(n, end);
  weigh(in, head, sums, solve_weights, read_weights, k);

  const View<float> x = scope.rows(end, width);
  const View<float> open(in.bound.values + head * width, sizes_.chunk, width, stride);
  copy_rows(open.slice_rows(0, first), x.slice_rows(0, first));
  for (Index i = 0; i < n; ++i) {
    const Index row = in.part.row + i;
    k.scale(in.rows.v.row(row) + head * width, in.rows.write(row, head), x.row(first + i), width);
    k.add_scaled(-(in.rows.erase(row, head) * factors[i]), read.row(i), x.row(first + i), width);
  }
  if (in.rows.match.data && in.rows.match(in.part.row, head) != 0)
    solve_matched(in, head, solve_weights, x, k);
  else
    solve_triangular(k, first, solve_weights, x);
  copy_rows(x.slice_rows(first, n), open.slice_rows(first, n));

  const View<float> o = read.slice_rows(n, n);
  for (Index i = 0; i < n; ++i) k.scale(o.row(i), factors[i], o.row(i), width);
  combine_triangular(k, first, read_weights, x, o);
  copy_rows(o, in.rows.o.slice_rows(in.part.row, n).slice_cols(head * width, width));
}

void Delta::read(const Past& past, const ChunkRows& part, Index head, const Rows& rows,
                 const Kernels& k) const {
  const Index n = part.rows, end = part.end(), width = sizes_.value;
  const Index key_head = head / (sizes_.value_heads / sizes_.key_heads);
  const View<const float> queries =
      rows.q.slice_rows(part.row, n).slice_cols(key_head * sizes_.key, sizes_.key);
  Arena::Scope scope(scratch());
  const View<float> weights = scope.rows(n, stride_), o = scope.rows(n, width);
  score(k, queries, past.keys + key_head * sizes_.key * stride_, stride_, end, weights);
  read_state(k, state_, queries, past.state + head * state_.elements(), o);
  if (sizes_.decay == Decay::scalar) {
    double* sums = scope.take<double>(end);
    float *own = scope.take(n), *factors = scope.take(end);
    sum_decays(past.decays + head * stride_, end, sums);
    k.exp_difference(sums + part.first, 0.0, own, n);
    for (Index i = 0; i < n; ++i) {
      const Index place = part.first + i;
      k.exp_difference_from(sums[place], sums, factors, place + 1);
      k.multiply(weights.row(i), factors, weights.row(i), place + 1);
      k.scale(o.row(i), own[i], o.row(i), width);
    }
  }
  combine_triangular(k, part.first, weights,
                     {past.values + head * width, end, width, sizes_.value_heads * width}, o);
  copy_rows(o, rows.o.slice_rows(part.row, n).slice_cols(head * width, width));
}

void Delta::solve_matched(const Group& in, Index head, View<const float> weights, View<float> x,
                          const Kernels& k) const {
  const auto length = [&](const float* row) {
    float square = k.sum_squares(row, x.cols), root = 0;
    k.sqrt(&square, &root, 1);
    return root;
  };
  for (Index i = 0; i < in.part.rows; ++i) {
    const Index place = in.part.first + i, row = in.part.row + i;
    k.combine(place, x.cols, weights.row(i), x.data, x.stride, x.row(place), Start::present);
    const float wanted = length(x.row(place));
    k.scale(in.rows.v.row(row) + head * x.cols, in.rows.write(row, head), x.row(place), x.cols);
    const float own = length(x.row(place));
    k.scale(x.row(place), own == 0 ? 0 : wanted / own, x.row(place), x.cols);
  }
}

void Delta::add_decays(const Group& in, Index head, double* sums, float* factors, const Kernels& k) const {
  if (sizes_.decay == Decay::none) {
    std::fill_n(factors, in.part.rows, 1.0f);
    return;
  }
  float* log_decays = in.bound.decays + head * stride_;
  for (Index i = 0; i < in.part.rows; ++i)
    log_decays[in.part.first + i] = std::max(in.rows.g(in.part.row + i, head), kLowestLogDecay);
  sum_decays(log_decays, in.part.end(), sums);
  k.exp_difference(sums + in.part.first, 0.0, factors, in.part.rows);
}

void Delta::weigh(const Group& in, Index head, const double* sums, View<float> solve, View<float> read,
                  const Kernels& k) const {
  for (Index i = 0; i < in.part.rows; ++i) {
    const Index place = in.part.first + i;
    const float* key_scores = in.key_scores.row(i);
    const float* query_scores = in.query_scores.row(i);
    if (sizes_.decay == Decay::scalar) {
      k.exp_difference_from(sums[place], sums, solve.row(i), place + 1);
      k.multiply(query_scores, solve.row(i), read.row(i), place + 1);
      k.multiply(key_scores, solve.row(i), solve.row(i), place);
      key_scores = solve.row(i);
    } else {
      std::copy_n(query_scores, place + 1, read.row(i));
    }
    k.scale(key_scores, -in.rows.erase(in.part.row + i, head), solve.row(i), place);
  }
}

void Delta::fold(const Bound& bound, Index key_head, const Kernels& k) const {
  const Index heads = sizes_.value_heads / sizes_.key_heads;
  for (Index h = 0; h < heads; ++h) fold_head(bound, key_head * heads + h, sizes_.chunk, k);
}

void Delta::edit_anchors(const Bound& bound, const StateEdit& edit, Index key_head, const Kernels& k) const {
  const Index heads = sizes_.value_heads / sizes_.key_heads, width = sizes_.value;
  for (Index head = key_head * heads; head < (key_head + 1) * heads; ++head) {
    if (!edits_state(edit.segment, edit.every, head)) continue;
    if (edit.every == Every::token) {
      const Index rows = (edit.position - 1) % sizes_.chunk + 1;
      fold_head(bound, head, rows, k);
      // What is in the anchor now must not be read twice.
      fill_rows(0, {bound.values + head * width, rows, width, sizes_.value_heads * width});
      if (sizes_.decay == Decay::scalar) std::fill_n(bound.decays + head * stride_, rows, 0.0f);
    }
    edit_state(edit.segment, edit.every, head, edit.position, 0,
               {bound.state + head * state_.elements(), sizes_.key, width});
  }
}

void Delta::fold_head(const Bound& bound, Index head, Index n, const Kernels& k) const {
  const Index width = sizes_.value;
  const Index key_head = head / (sizes_.value_heads / sizes_.key_heads);
  float* state = bound.state + head * state_.elements();
  View<const float> keys(bound.keys + key_head * sizes_.key * stride_, sizes_.key, n, stride_);
  Arena::Scope scope(scratch());
  const View<float> x = scope.rows(n, width);
  copy_rows(View<const float>(bound.values + head * width, n, width, sizes_.value_heads * width), x);
  float* decay = nullptr;
  if (sizes_.decay == Decay::scalar) {
    decay = scope.take(sizes_.key);
    decay_values(k, bound.decays + head * stride_, x, {decay, static_cast<std::size_t>(sizes_.key)});
  }
  write_state(k, state_, keys, x, decay, state);
}

}  // namespace plait
