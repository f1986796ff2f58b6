#include "layers/recurrent/key_gram.h"

#include <algorithm>

#include "runtime/kernels/rowwise.h"

namespace plait {
KeyGram::KeyGram(const Kernels& k, Index key, const KeyChunk& chunk, Index first, Index rows,
                 Arena::Scope& scope)
    : k_(k),
      chunk_(chunk),
      first_(first),
      keys_(scope.rows(first + rows, key)),
      weights_(scope.rows(rows, first + rows)),
      scores_(scope.rows(rows, round_up(first + rows, kPanel))),
      factors_(scope.take(rows)) {
  read_columns(chunk.keys, chunk.stride, keys_);
  double* sums = nullptr;
  if (chunk.log_decays) {
    sums = scope.take<double>(first + rows);
    sum_decays(chunk.log_decays, first + rows, sums);
    k.exp_difference(sums + first, 0.0, factors_, rows);
  } else {
    std::fill_n(factors_, rows, 1.0f);
  }
  for (Index i = 0; i < rows; ++i) {
    const Index count = first + i + 1;
    float* row = weights_.row(i);
    if (!sums) {
      std::copy_n(chunk.strengths, count, row);
      continue;
    }
    k.exp_difference_from(sums[first + i], sums, row, count);
    k.multiply(row, chunk.strengths, row, count);
  }
}

void KeyGram::read(const StateShape& shape, const float* state, View<const float> values, View<const float> p,
                   View<float> y) const {
  read_state(k_, shape, p, state, y);
  score(k_, p, chunk_.keys, chunk_.stride, keys_.rows, scores_);
  for (Index i = 0; i < p.rows; ++i) {
    k_.scale(y.row(i), factors_[i], y.row(i), y.cols);
    k_.multiply(scores_.row(i), weights_.row(i), scores_.row(i), first_ + i + 1);
  }
  combine_triangular(k_, first_, scores_, values, y);
}

void KeyGram::diagonal(const float* gram, Index i, float* d) const {
  const Index key = keys_.cols, count = first_ + i + 1;
  for (Index c = 0; c < key; ++c) d[c] = gram[(c / kPanel * key + c) * kPanel + c % kPanel];
  k_.scale(d, factors_[i], d, key);
  Arena::Scope scope(scratch());
  const View<float> squares = scope.rows(count, key);
  for (Index j = 0; j < count; ++j) k_.square(keys_.row(j), squares.row(j), key);
  k_.combine(count, key, weights_.row(i), squares.data, squares.stride, d, Start::present);
}

void KeyGram::form(const float* gram, Index i, View<float> h) const {
  const Index key = keys_.cols, count = first_ + i + 1;
  Arena::Scope scope(scratch());
  const View<float> weighted = scope.rows(count, key);
  for (Index j = 0; j < count; ++j) k_.scale(keys_.row(j), weights_(i, j), weighted.row(j), key);
  StateShape{key, key}.for_each_panel([&](Index p, Index column, Index columns) {
    for (Index d = 0; d < key; ++d)
      k_.scale(gram + (p * key + d) * kPanel, factors_[i], h.row(d) + column, columns);
    k_.panel(key, count, columns, chunk_.keys, chunk_.stride, weighted.data + column, weighted.stride,
             h.data + column, h.stride, Start::present);
  });
}

void fold_outer(const Kernels& k, const StateShape& shape, const KeyChunk& chunk, View<float> x,
                float* state) {
  for (Index j = 0; j < x.rows; ++j) k.scale(x.row(j), chunk.strengths[j], x.row(j), x.cols);
  Arena::Scope scope(scratch());
  float* decay = nullptr;
  if (chunk.log_decays) {
    decay = scope.take(shape.key);
    decay_values(k, chunk.log_decays, x, {decay, static_cast<std::size_t>(shape.key)});
  }
  write_state(k, shape, {chunk.keys, shape.key, x.rows, chunk.stride}, x, decay, state);
}

void fold_gram(const Kernels& k, Index key, const KeyChunk& chunk, Index n, float* gram) {
  Arena::Scope scope(scratch());
  const View<float> rows = scope.rows(n, key);
  read_columns(chunk.keys, chunk.stride, rows);
  fold_outer(k, {key, key}, chunk, rows, gram);
}

}  // namespace plait
