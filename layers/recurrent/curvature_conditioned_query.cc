#include "layers/recurrent/curvature_conditioned_query.h"

#include <algorithm>

#include "layers/recurrent/rows.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

// A row's own key counts as 1; fewer keys than this are left only where edits kept the keys of many tokens
// out. What is left of C and m has no digits then, and the query stays as it is.
constexpr float kFewest = 0x1p-100f;

}  // namespace

Curvature::Curvature(const Sizes& sizes, const QuerySettings& settings, std::span<const double> lambda,
                     Index first_field)
    : sizes_(sizes),
      settings_(settings),
      lambda_(lambda.begin(), lambda.end()),
      gram_{sizes.key, sizes.key},
      stride_(round_up(sizes.chunk, kPanel)),
      first_field_(first_field) {
  using ChannelDecay = QuerySettings::ChannelDecay;
  left_ = settings.channel_decay == ChannelDecay::symmetric ? 0.5 : 1;
  right_ = settings.channel_decay == ChannelDecay::left ? 0 : left_;
  assert(static_cast<Index>(lambda_.size()) == sizes.outputs());
  assert(!channelwise() || (sizes.state_heads == sizes.key_heads && !counted()));
}

std::vector<Field> Curvature::fields() const {
  using Kind = Field::Kind;
  using Order = Field::Order;
  const Index grid = sizes_.chunk, heads = sizes_.state_heads, keys = sizes_.key_heads * sizes_.key;
  const Shape decays = {channelwise() ? keys : heads};
  std::vector<Field> all = {
      gridded_field("query_C", Kind::anchor, {heads, gram_.panels(), sizes_.key, kPanel}, Order::rows, grid),
      gridded_field("query_k", Kind::open, {keys}, Order::columns, grid),
      gridded_field("query_w", Kind::open, {heads}, Order::columns, grid)};
  if (sizes_.decay != Decay::none)
    all.push_back(
        gridded_field("query_g", Kind::open, decays, channelwise() ? Order::rows : Order::columns, grid));
  if (counted()) all.push_back(gridded_field("query_n", Kind::anchor, {heads}, Order::rows, grid));
  if (settings_.center)
    all.push_back(gridded_field("query_m", Kind::anchor, {heads, sizes_.key}, Order::rows, grid));
  return all;
}

Curvature::Bound Curvature::bind(State& state) const {
  Bound bound{state.anchor(first_field_),
              state.open(first_field_ + 1),
              state.open(first_field_ + 2),
              nullptr,
              nullptr,
              nullptr};
  Index next = first_field_ + 3;
  if (sizes_.decay != Decay::none) bound.decays = state.open(next++);
  if (counted()) bound.counts = state.anchor(next++);
  if (settings_.center) bound.means = state.anchor(next);
  return bound;
}

// Without the decays where they are per channel.
KeyChunk Curvature::chunk_of(const Bound& bound, Index state) const {
  const Index key_head = state / states_per_key();
  return {bound.keys + key_head * sizes_.key * stride_, bound.strengths + state * stride_,
          sizes_.decay == Decay::scalar ? bound.decays + state * stride_ : nullptr, stride_};
}

void Curvature::store(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
                      const Kernels& k) const {
  const Index key = sizes_.key, first = key_head * states_per_key();
  write_columns(rows.k.slice_rows(part.row, part.rows).slice_cols(key_head * key, key), part.first,
                bound.keys + key_head * key * stride_, stride_);
  for (Index i = 0; i < part.rows; ++i) {
    const Index row = part.row + i, place = part.first + i;
    for (Index s = first; s < first + states_per_key(); ++s) {
      bound.strengths[s * stride_ + place] = rows.write(row, s);
      if (sizes_.decay == Decay::scalar)
        bound.decays[s * stride_ + place] = std::max(rows.g(row, s), kLowestLogDecay);
    }
    if (channelwise())
      k.clamp(rows.g.row(row) + key_head * key, kLowestLogDecay, 0,
              bound.decays + (place * sizes_.key_heads + key_head) * key, key);
  }
}

void Curvature::absorb(const Bound& bound, const ChunkRows& part, Index key_head, const Rows& rows,
                       const Kernels& k) const {
  const Index n = part.rows, key = sizes_.key, outputs = sizes_.outputs();
  const Index reads = outputs / sizes_.state_heads;
  store(bound, part, key_head, rows, k);
  Arena::Scope scope(scratch());
  const View<float> q = scope.rows(n, key), y = scope.rows(n, key);
  for (Index state = key_head * states_per_key(); state < (key_head + 1) * states_per_key(); ++state) {
    Arena::Scope inner(scratch());
    const KeyGram gram(k, key, chunk_of(bound, state), part.first, n, inner);
    for (Index o = state * reads; o < (state + 1) * reads; ++o) {
      const View<float> to = rows.conditioned.slice_rows(part.row, n).slice_cols(o * key, key);
      const float lambda = lambda_[static_cast<std::size_t>(o)];
      copy_rows(rows.q.slice_rows(part.row, n).slice_cols(o / (outputs / sizes_.query_heads) * key, key), q);
      if (lambda == 0) {  // the plain query, signs of zeros included
        copy_rows(q, to);
        continue;
      }
      if (channelwise())
        apply_channels(bound, part, state, q, y, k);
      else
        gram.apply(bound.gram + state * gram_.elements(), q, y);
      contract(gram, bound, state, lambda, q, y, k);
      copy_rows(y, to);
    }
  }
}

void Curvature::contract(const KeyGram& gram, const Bound& bound, Index state, float lambda,
                         View<const float> q, View<float> y, const Kernels& k) const {
  Arena::Scope scope(scratch());
  float* mean = settings_.center ? scope.take(q.cols) : nullptr;
  for (Index i = 0; i < q.rows; ++i) {
    const float n = counted() ? count(gram, bound, state, i, mean, k) : 1;
    if (n < kFewest) {
      std::copy_n(q.row(i), q.cols, y.row(i));
      continue;
    }
    if (settings_.center) k.add_scaled(-(k.dot(mean, q.row(i), q.cols) / n), mean, y.row(i), q.cols);
    k.scale(y.row(i), settings_.normalise ? -lambda / n : -lambda, y.row(i), q.cols);
    k.add(y.row(i), q.row(i), y.row(i), q.cols);
  }
}

float Curvature::count(const KeyGram& gram, const Bound& bound, Index state, Index i, float* mean,
                       const Kernels& k) const {
  const View<const float> keys = gram.keys();
  const float* weights = gram.weights().row(i);
  const Index seen = keys.rows - gram.weights().rows + i + 1;
  if (mean) {
    k.scale(bound.means + state * keys.cols, gram.factor(i), mean, keys.cols);
    k.combine(seen, keys.cols, weights, keys.data, keys.stride, mean, Start::present);
  }
  return bound.counts[state] * gram.factor(i) + k.sum(weights, seen);
}

// Row i, with the powers l on the output's side and r on the query's:
//   y = e^{l b_i} (C' (e^{r b_i} q)) + sum_{j <= i} w_j (q.(e^{r (b_i - b_j)} k_j)) e^{l (b_i - b_j)} k_j
void Curvature::apply_channels(const Bound& bound, const ChunkRows& part, Index state, View<const float> q,
                               View<float> y, const Kernels& k) const {
  const Index n = part.rows, end = part.end(), key = sizes_.key;
  const KeyChunk chunk = chunk_of(bound, state);
  Arena::Scope scope(scratch());
  const View<float> keys = scope.rows(end, key), read = scope.rows(n, key);
  double* sums = scope.take<double>(end * key);
  float *inward = scope.take(key), *outward = scope.take(key);
  read_columns(chunk.keys, stride_, keys);
  sum_channels({bound.decays + state * key, end, key, sizes_.key_heads * key}, end, sums);
  for (Index i = 0; i < n; ++i) {
    exp_differences(k, sums + (part.first + i) * key, nullptr, right_, inward, key);
    k.multiply(q.row(i), inward, read.row(i), key);
  }
  read_state(k, gram_, read, bound.gram + state * gram_.elements(), y);
  for (Index i = 0; i < n; ++i) {
    const double* own = sums + (part.first + i) * key;
    exp_differences(k, own, nullptr, left_, outward, key);
    k.multiply(y.row(i), outward, y.row(i), key);
    for (Index j = 0; j <= part.first + i; ++j) {
      exp_differences(k, own, sums + j * key, right_, inward, key);
      k.multiply(inward, keys.row(j), inward, key);
      const float weight = chunk.strengths[j] * k.dot(q.row(i), inward, key);
      if (left_ != right_) {
        exp_differences(k, own, sums + j * key, left_, inward, key);
        k.multiply(inward, keys.row(j), inward, key);
      }
      k.add_scaled(weight, inward, y.row(i), key);
    }
  }
}

void Curvature::fold(const Bound& bound, Index key_head, const Kernels& k) const {
  for (Index state = key_head * states_per_key(); state < (key_head + 1) * states_per_key(); ++state) {
    if (channelwise()) {
      fold_channels(bound, state, k);
      continue;
    }
    const KeyChunk chunk = chunk_of(bound, state);
    if (counted()) {  // as the chunk's last row sees them
      Arena::Scope scope(scratch());
      const KeyGram last(k, sizes_.key, chunk, sizes_.chunk - 1, 1, scope);
      float* mean = settings_.center ? scope.take(sizes_.key) : nullptr;
      bound.counts[state] = count(last, bound, state, 0, mean, k);
      if (mean) std::copy_n(mean, sizes_.key, bound.means + state * sizes_.key);
    }
    fold_gram(k, sizes_.key, chunk, sizes_.chunk, bound.gram + state * gram_.elements());
  }
}

void Curvature::fold_channels(const Bound& bound, Index state, const Kernels& k) const {
  const Index n = sizes_.chunk, key = sizes_.key;
  const KeyChunk chunk = chunk_of(bound, state);
  float* gram = bound.gram + state * gram_.elements();
  Arena::Scope scope(scratch());
  const View<float> keys = scope.rows(n, key), inward = scope.rows(key, n);
  double* sums = scope.take<double>(n * key);
  float *row = scope.take(key), *decay = scope.take(key);
  read_columns(chunk.keys, stride_, keys);
  sum_channels({bound.decays + state * key, n, key, sizes_.key_heads * key}, n, sums);
  const double* last = sums + (n - 1) * key;
  exp_differences(k, last, nullptr, left_, row, key);
  gram_.for_each_panel([&](Index p, Index column, Index columns) {
    for (Index d = 0; d < key; ++d) {
      float* elements = gram + (p * key + d) * kPanel;
      k.multiply(elements, row + column, elements, columns);
    }
  });
  for (Index j = 0; j < n; ++j) {
    exp_differences(k, last, sums + j * key, right_, row, key);
    k.multiply(row, keys.row(j), row, key);
    write_columns({row, 1, key}, j, inward.data, inward.stride);
    exp_differences(k, last, sums + j * key, left_, row, key);
    k.multiply(row, keys.row(j), row, key);
    k.scale(row, chunk.strengths[j], keys.row(j), key);
  }
  exp_differences(k, last, nullptr, right_, decay, key);
  write_state(k, gram_, inward, keys, decay, gram);
}

void write_keys(std::span<const Segment> segments, Index heads, View<float> write) {
  for (const Segment& segment : segments) {
    const View<float> rows = rows_of(segment, write);
    fill_rows(1, rows);
    for (Index h = 0; h < heads; ++h)
      for (const auto& [site, op] : {std::pair{Site::state, Operator::freeze},
                                     {Site::state, Operator::no_write},
                                     {Site::state, Operator::delete_write},
                                     {Site::write, Operator::zero}})
        if (segment.edit(site, op, h)) fill_rows(0, rows.slice_cols(h, 1));
  }
}

}  // namespace plait
