#include "layers/recurrent/decayed_sum.h"

#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

// Rows of a chunk that share a reference row for channelwise decays.
constexpr Index kSubChunk = 16;

}  // namespace

DecayedSum::DecayedSum(const Sizes& sizes, Index first_field)
    : sizes_(sizes),
      state_{sizes.key, sizes.value},
      stride_(round_up(sizes.chunk, kPanel)),
      first_field_(first_field) {
  assert(sizes.query_heads % sizes.key_heads == 0 && sizes.state_heads % sizes.key_heads == 0);
  assert(sizes.decay != Decay::channelwise || (sizes.state_heads == sizes.key_heads && sizes.root == 0));
}

std::vector<Field> DecayedSum::fields() const {
  using Kind = Field::Kind;
  using Order = Field::Order;
  const Index grid = sizes_.chunk, keys = sizes_.key_heads * sizes_.row();
  const Shape state = {sizes_.state_heads, state_.panels(), sizes_.key, kPanel};
  std::vector<Field> all = {
      gridded_field("S", Kind::anchor, state, Order::rows, grid),
      gridded_field("k", Kind::open, {keys}, channelwise() ? Order::rows : Order::columns, grid),
      gridded_field("x", Kind::open, {sizes_.state_heads * sizes_.value}, Order::rows, grid)};
  if (sizes_.decay == Decay::scalar)
    all.push_back(gridded_field("g", Kind::open, {sizes_.state_heads}, Order::columns, grid));
  if (channelwise()) all.push_back(gridded_field("g", Kind::open, {keys}, Order::rows, grid));
  return all;
}

DecayedSum::Bound DecayedSum::bind(State& state) const {
  return {state.anchor(first_field_), state.open(first_field_ + 1), state.open(first_field_ + 2),
          sizes_.decay == Decay::none ? nullptr : state.open(first_field_ + 3)};
}

DecayedSum::Past DecayedSum::past(const State& state, Index boundary) const {
  return {state.past(first_field_, boundary), state.past(first_field_ + 1, boundary),
          state.past(first_field_ + 2, boundary),
          sizes_.decay == Decay::none ? nullptr : state.past(first_field_ + 3, boundary)};
}

void DecayedSum::run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const {
  ChunkWalk<DecayedSum>(*this, segments).run(rows, compute);
}

void DecayedSum::fold(State& state, const Compute& compute) const { fold_chunk(*this, state, compute); }

void DecayedSum::absorb(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
                        const Kernels& k) const {
  store_keys(bound, part, key_head, rows, k);
  Arena::Scope scope(scratch());
  const Past chunk = past(bound);
  const Group group =
      score_queries(chunk, part, key_head * queries_per_key(), queries_per_key(), rows, scope, k);
  for (Index s = 0; s < states_per_key(); ++s) {
    const Index state = key_head * states_per_key() + s, output = state * outputs_per_state();
    store_values(bound, part, state, rows, k);
    read_heads(group, {state, output / outputs_per_query() % queries_per_key(), output, outputs_per_state()},
               k);
  }
}

void DecayedSum::read(const Past& past, const ChunkRows& part, Index head, const Rows& rows,
                      const Kernels& k) const {
  Arena::Scope scope(scratch());
  const Group group = score_queries(past, part, head / outputs_per_query(), 1, rows, scope, k);
  read_heads(group, {head / outputs_per_state(), 0, head, 1}, k);
}

void DecayedSum::store_keys(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
                            const Kernels& k) const {
  const Index n = part.rows, width = sizes_.row();
  const auto own = [&](View<const float> all) {
    return all.slice_rows(part.row, n).slice_cols(key_head * width, width);
  };
  if (!channelwise())
    return write_columns(own(rows.k), part.first, bound.keys + key_head * width * stride_, stride_);
  const auto open = [&](float* all) {
    const View<float> chunk(all + key_head * width, sizes_.chunk, width, sizes_.key_heads * width);
    return chunk.slice_rows(part.first, n);
  };
  copy_rows(own(rows.k), open(bound.keys));
  for (Index i = 0; i < n; ++i)
    k.clamp(own(rows.g).row(i), kLowestLogDecay, 0, open(bound.decays).row(i), width);
}

void DecayedSum::store_values(const Bound& bound, const ChunkRows& part, Index state, const Rows& rows,
                              const Kernels& k) const {
  const Index width = sizes_.value, stride = sizes_.state_heads * width;
  for (Index i = 0; i < part.rows; ++i) {
    const Index row = part.row + i, place = part.first + i;
    k.scale(rows.v.row(row) + state * width, rows.write(row, state),
            bound.values + place * stride + state * width, width);
    if (sizes_.decay == Decay::scalar)
      bound.decays[state * stride_ + place] = std::max(rows.g(row, state), kLowestLogDecay);
  }
}

DecayedSum::Group DecayedSum::score_queries(const Past& past, const ChunkRows& part, Index first, Index count,
                                            const Rows& rows, Arena::Scope& scope, const Kernels& k) const {
  const Index n = part.rows, width = sizes_.row(), key_head = first / queries_per_key();
  // Without gaps: rows a power of two apart in a wide batch would share cache sets.
  const Group group{past, part, rows, scope.rows(count * n, width),
                    scope.rows(count * n, round_up(part.end(), kPanel))};
  for (Index h = 0; h < count; ++h)
    copy_rows(rows.q.slice_rows(part.row, n).slice_cols((first + h) * width, width),
              group.queries.slice_rows(h * n, n));
  if (channelwise()) {
    score_channels(group, key_head, k);
    return group;
  }
  const float* keys = past.keys + key_head * width * stride_;
  const Index compared = sizes_.root > 0 ? sizes_.root : width;
  score(k, group.queries.slice_cols(0, compared), keys, stride_, part.end(), group.scores);
  for (Index r = 0; sizes_.root > 0 && r < group.scores.rows; ++r)
    k.square(group.scores.row(r), group.scores.row(r), part.end());
  return group;
}

// sum_d q_id k_jd e^{b_id - b_jd} without a positive exponent: rows j before the sub-chunk of row i meet it
// at that sub-chunk's first row r, (q_i e^{b_i - b_r}).(k_j e^{b_r - b_j}); the others channel by channel.
void DecayedSum::score_channels(const Group& in, Index key_head, const Kernels& k) const {
  const Index n = in.part.rows, first = in.part.first, end = in.part.end(), width = sizes_.key;
  const Index stride = sizes_.key_heads * width;
  const View<const float> keys(in.past.keys + key_head * width, sizes_.chunk, width, stride);
  const View<const float> decays(in.past.decays + key_head * width, sizes_.chunk, width, stride);
  Arena::Scope scope(scratch());
  double* sums = scope.take<double>(end * width);
  sum_channels(decays, end, sums);
  const View<float> shifted = scope.rows(end, width);  // k_j e^{b_r - b_j} for the sub-chunk at hand
  Index reference = -1;
  for (Index i = 0; i < n; ++i) {
    const Index r = (first + i) / kSubChunk * kSubChunk;
    for (Index j = 0; r != reference && j < r; ++j) {
      exp_differences(k, sums + r * width, sums + j * width, 1, shifted.row(j), width);
      k.multiply(shifted.row(j), keys.row(j), shifted.row(j), width);
    }
    reference = r;
    score_channels_of_row(in, i, sums, keys, shifted, k);
  }
}

void DecayedSum::score_channels_of_row(const Group& in, Index i, const double* sums, View<const float> keys,
                                       View<const float> shifted, const Kernels& k) const {
  const Index n = in.part.rows, width = sizes_.key, queries = in.count();
  const Index place = in.part.first + i, r = place / kSubChunk * kSubChunk;
  const double* own = sums + place * width;
  Arena::Scope scope(scratch());
  float* factors = scope.take(width);
  float* query = scope.take(width);
  exp_differences(k, own, sums + r * width, 1, factors, width);
  for (Index h = 0; h < queries; ++h) {
    k.multiply(in.queries.row(h * n + i), factors, query, width);
    for (Index j = 0; j < r; ++j) in.scores(h * n + i, j) = k.dot(query, shifted.row(j), width);
  }
  for (Index j = r; j <= place; ++j) {
    exp_differences(k, own, sums + j * width, 1, factors, width);
    k.multiply(factors, keys.row(j), factors, width);
    for (Index h = 0; h < queries; ++h)
      in.scores(h * n + i, j) = k.dot(in.queries.row(h * n + i), factors, width);
  }
  // From here on the query meets the anchor only.
  exp_differences(k, own, nullptr, 1, factors, width);
  for (Index h = 0; h < queries; ++h)
    k.multiply(in.queries.row(h * n + i), factors, in.queries.row(h * n + i), width);
}

void DecayedSum::read_heads(const Group& in, const Readers& readers, const Kernels& k) const {
  const Index n = in.part.rows, first = in.part.first, end = in.part.end(), width = sizes_.value;
  const Index state = readers.state, rows = readers.count * n;
  Arena::Scope scope(scratch());
  const View<float> reads = scope.rows(rows, width);
  read_state(k, state_, in.queries.slice_rows(readers.query * n, rows).slice_cols(sizes_.root, sizes_.key),
             in.past.state + state * state_.elements(), reads);
  View<float> weights = in.scores.slice_rows(readers.query * n, rows);
  if (sizes_.decay == Decay::scalar) {
    weights = scope.rows(rows, end);
    decay_reads(in, readers, reads, weights, k);
  }
  const View<float> x = scope.rows(end, width);
  copy_rows(View<const float>(in.past.values + state * width, end, width, sizes_.state_heads * width), x);
  for (Index h = 0; h < readers.count; ++h) {
    const View<float> o = reads.slice_rows(h * n, n);
    combine_triangular(k, first, weights.slice_rows(h * n, n), x, o);
    copy_rows(o, in.rows.o.slice_rows(in.part.row, n).slice_cols((readers.output + h) * width, width));
  }
}

// Scalar decays: reads times e^{b_i}, weights = scores times e^{b_i - b_j}.
void DecayedSum::decay_reads(const Group& in, const Readers& readers, View<float> reads, View<float> weights,
                             const Kernels& k) const {
  const Index n = in.part.rows, first = in.part.first;
  Arena::Scope scope(scratch());
  double* sums = scope.take<double>(in.part.end());
  float* factors = scope.take(in.part.end());
  sum_decays(in.past.decays + readers.state * stride_, in.part.end(), sums);
  for (Index i = 0; i < n; ++i) {
    float own = 0;
    k.exp_difference(sums + first + i, 0.0, &own, 1);
    k.exp_difference_from(sums[first + i], sums, factors, first + i + 1);
    for (Index h = 0; h < readers.count; ++h) {
      k.scale(reads.row(h * n + i), own, reads.row(h * n + i), reads.cols);
      k.multiply(in.scores.row((readers.query + h) * n + i), factors, weights.row(h * n + i), first + i + 1);
    }
  }
}

void DecayedSum::fold(const Bound& bound, Index key_head, const Kernels& k) const {
  for (Index s = 0; s < states_per_key(); ++s)
    fold_state(bound, key_head * states_per_key() + s, sizes_.chunk, k);
}

void DecayedSum::edit_anchors(const Bound& bound, const StateEdit& edit, Index key_head,
                              const Kernels& k) const {
  for (Index s = 0; s < states_per_key(); ++s) {
    const Index state = key_head * states_per_key() + s;
    if (!edits_state(edit.segment, edit.every, state)) continue;
    if (edit.every == Every::token) {
      const Index rows = (edit.position - 1) % sizes_.chunk + 1;
      fold_state(bound, state, rows, k);
      clear_rows(bound, state, rows);
    }
    edit_state(edit.segment, edit.every, state, edit.position, 0,
               {bound.state + state * state_.elements(), sizes_.key, sizes_.value});
  }
}

void DecayedSum::clear_rows(const Bound& bound, Index state, Index rows) const {
  const Index width = sizes_.value, keys = sizes_.key_heads * sizes_.key;
  fill_rows(0, {bound.values + state * width, rows, width, sizes_.state_heads * width});
  if (sizes_.decay == Decay::scalar) std::fill_n(bound.decays + state * stride_, rows, 0.0f);
  if (channelwise()) fill_rows(0, {bound.decays + state * sizes_.key, rows, sizes_.key, keys});
}

void DecayedSum::fold_state(const Bound& bound, Index state, Index n, const Kernels& k) const {
  const Index width = sizes_.value, key_head = state / states_per_key();
  float* s = bound.state + state * state_.elements();
  Arena::Scope scope(scratch());
  const View<float> x = scope.rows(n, width);
  copy_rows(View<const float>(bound.values + state * width, n, width, sizes_.state_heads * width), x);
  float* decay = sizes_.decay == Decay::none ? nullptr : scope.take(sizes_.key);
  if (channelwise()) {
    const View<float> keys = scope.rows(sizes_.key, n);
    decay_keys(bound, key_head, keys, decay, k);
    write_state(k, state_, keys, x, decay, s);
    return;
  }
  if (sizes_.decay == Decay::scalar)
    decay_values(k, bound.decays + state * stride_, x, {decay, static_cast<std::size_t>(sizes_.key)});
  const float* keys = bound.keys + (key_head * sizes_.row() + sizes_.root) * stride_;
  write_state(k, state_, {keys, sizes_.key, n, stride_}, x, decay, s);
}

// decay <- e^{b_n}, keys [key, n] = (k_j e^{b_n - b_j})'
void DecayedSum::decay_keys(const Bound& bound, Index key_head, View<float> keys, float* decay,
                            const Kernels& k) const {
  const Index n = keys.cols, width = sizes_.key, stride = sizes_.key_heads * width;
  const View<const float> open(bound.keys + key_head * width, n, width, stride);
  Arena::Scope scope(scratch());
  double* sums = scope.take<double>(n * width);
  sum_channels({bound.decays + key_head * width, n, width, stride}, n, sums);
  const double* last = sums + (n - 1) * width;
  float* row = scope.take(width);
  for (Index j = 0; j < n; ++j) {
    exp_differences(k, last, sums + j * width, 1, row, width);
    k.multiply(row, open.row(j), row, width);
    write_columns({row, 1, width}, j, keys.data, keys.stride);
  }
  exp_differences(k, last, nullptr, 1, decay, width);
}

}  // namespace plait
