#include "layers/recurrent/ridge_solver.h"

#include <algorithm>

#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {

RidgeSolver::RidgeSolver(Settings settings, Index first_field)
    : s_(std::move(settings)),
      state_{s_.key, s_.value},
      gram_{s_.key, s_.key},
      stride_(round_up(s_.chunk, kPanel)),
      first_field_(first_field) {
  assert(static_cast<Index>(s_.ridge.size()) == s_.heads * s_.key);
}

std::vector<Field> RidgeSolver::fields() const {
  using Kind = Field::Kind;
  using Order = Field::Order;
  const Index grid = s_.chunk;
  return {gridded_field("S", Kind::anchor, {s_.heads, state_.panels(), s_.key, kPanel}, Order::rows, grid),
          gridded_field("H", Kind::anchor, {s_.heads, gram_.panels(), s_.key, kPanel}, Order::rows, grid),
          gridded_field("k", Kind::open, {s_.heads * s_.key}, Order::columns, grid),
          gridded_field("v", Kind::open, {s_.heads * s_.value}, Order::rows, grid),
          gridded_field("w", Kind::open, {s_.heads}, Order::columns, grid),
          gridded_field("g", Kind::open, {s_.heads}, Order::columns, grid)};
}

RidgeSolver::Bound RidgeSolver::bind(State& state) const {
  const Index f = first_field_;
  return {state.anchor(f),   state.anchor(f + 1), state.open(f + 2),
          state.open(f + 3), state.open(f + 4),   state.open(f + 5)};
}

RidgeSolver::Past RidgeSolver::past(const State& state, Index boundary) const {
  const auto field = [&](Index i) { return state.past(first_field_ + i, boundary); };
  return {field(0), field(1), field(2), field(3), field(4), field(5)};
}

void RidgeSolver::run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const {
  ChunkWalk<RidgeSolver>(*this, segments).run(rows, compute);
}

void RidgeSolver::fold(State& state, const Compute& compute) const { fold_chunk(*this, state, compute); }

void RidgeSolver::absorb(const Bound& bound, const ChunkRows& part, Index head, const Rows& rows,
                         const Kernels& k) const {
  write_columns(rows.k.slice_rows(part.row, part.rows).slice_cols(head * s_.key, s_.key), part.first,
                bound.keys + head * s_.key * stride_, stride_);
  copy_rows(rows.v.slice_rows(part.row, part.rows).slice_cols(head * s_.value, s_.value),
            View<float>(bound.values + (part.first * s_.heads + head) * s_.value, part.rows, s_.value,
                        s_.heads * s_.value));
  for (Index i = 0; i < part.rows; ++i) {
    const Index place = head * stride_ + part.first + i;
    bound.strengths[place] = rows.write(part.row + i, head);
    bound.decays[place] = std::max(rows.g(part.row + i, head), kLowestLogDecay);
  }
  read(past(bound), part, head, rows, k);
}

void RidgeSolver::read(const Past& past, const ChunkRows& part, Index head, const Rows& rows,
                       const Kernels& k) const {
  const Index n = part.rows, end = part.end();
  Arena::Scope scope(scratch());
  const KeyGram gram(k, s_.key, keys_of(past, head), part.first, n, scope);
  const View<float> q = scope.rows(n, s_.key), x = scope.rows(n, s_.key), o = scope.rows(n, s_.value),
                    values = scope.rows(end, s_.value);
  copy_rows(rows.q.slice_rows(part.row, n).slice_cols(head * s_.key, s_.key), q);
  copy_rows(View<const float>(past.values + head * s_.value, end, s_.value, s_.heads * s_.value), values);
  solve({gram, past.gram + head * gram_.elements(), s_.ridge.data() + head * s_.key, q}, x, k);
  gram.read(state_, past.state + head * state_.elements(), values, x, o);
  copy_rows(o, rows.o.slice_rows(part.row, n).slice_cols(head * s_.value, s_.value));
}

void RidgeSolver::apply(const System& in, View<const float> p, View<float> y, const Kernels& k) const {
  in.gram.apply(in.start, p, y);
  for (Index i = 0; i < p.rows; ++i) k.multiply_add(in.ridge, p.row(i), y.row(i), p.cols);
}

void RidgeSolver::solve(const System& in, View<float> x, const Kernels& k) const {
  if (s_.method == Method::cholesky)
    solve_by_factors(in, x, k);
  else
    solve_by_steps(in, x, k);
}

// The rows step together, because their products share the reads of H; what a row does is its own business.
void RidgeSolver::solve_by_steps(const System& in, View<float> x, const Kernels& k) const {
  const Index n = x.rows, width = x.cols;
  Arena::Scope scope(scratch());
  const View<float> r = scope.rows(n, width), p = scope.rows(n, width), ap = scope.rows(n, width);
  float *square = scope.take(n), *enough = scope.take(n);  // r.r, and where a row stops
  copy_rows(in.q, r);
  fill_rows(0, x);
  if (s_.first == First::diagonal) {
    for (Index i = 0; i < n; ++i) {
      in.gram.diagonal(in.start, i, ap.row(i));
      k.add(ap.row(i), in.ridge, ap.row(i), width);
      k.add_scalar(ap.row(i), s_.eps, ap.row(i), width);
      k.divide(in.q.row(i), ap.row(i), x.row(i), width);
    }
    apply(in, x, ap, k);
    for (Index i = 0; i < n; ++i) k.subtract(r.row(i), ap.row(i), r.row(i), width);
  }
  copy_rows(r, p);
  for (Index i = 0; i < n; ++i) {
    square[i] = k.sum_squares(r.row(i), width);
    enough[i] = s_.tolerance * s_.tolerance * k.sum_squares(in.q.row(i), width);
  }
  for (Index step = 0; step < s_.steps; ++step) {
    apply(in, p, ap, k);
    for (Index i = 0; i < n; ++i) {
      if (square[i] <= enough[i]) continue;
      const float curvature = k.dot(p.row(i), ap.row(i), width) + s_.eps;
      if (curvature == 0) continue;  // without eps: the residual is too small to be squared
      const float alpha = square[i] / curvature;
      k.add_scaled(alpha, p.row(i), x.row(i), width);
      k.add_scaled(-alpha, ap.row(i), r.row(i), width);
      const float now = k.sum_squares(r.row(i), width);
      k.scale(p.row(i), now / (square[i] + s_.eps), p.row(i), width);
      k.add(p.row(i), r.row(i), p.row(i), width);
      square[i] = now;
    }
  }
}

// A = L D L' without square roots. Row j of the upper triangle becomes d_j times column j of L.
void RidgeSolver::solve_by_factors(const System& in, View<float> x, const Kernels& k) const {
  const Index n = x.cols;
  Arena::Scope scope(scratch());
  const View<float> a = scope.rows(n, n);
  for (Index i = 0; i < x.rows; ++i) {
    in.gram.form(in.start, i, a);
    for (Index d = 0; d < n; ++d) a(d, d) += in.ridge[d];
    float* z = x.row(i);
    std::copy_n(in.q.row(i), n, z);
    for (Index j = 0; j < n; ++j) {
      const float* row = a.row(j);
      for (Index c = j + 1; c < n; ++c) k.add_scaled(-(row[c] / row[j]), row + c, a.row(c) + c, n - c);
      z[j] /= row[j];
      k.add_scaled(-z[j], row + j + 1, z + j + 1, n - j - 1);
    }
    for (Index j = n - 1; j >= 0; --j) z[j] -= k.dot(a.row(j) + j + 1, z + j + 1, n - j - 1) / a(j, j);
  }
}

void RidgeSolver::fold(const Bound& bound, Index head, const Kernels& k) const {
  fold_head(bound, head, s_.chunk, k);
}

void RidgeSolver::fold_head(const Bound& bound, Index head, Index n, const Kernels& k) const {
  const KeyChunk chunk = keys_of(past(bound), head);
  Arena::Scope scope(scratch());
  const View<float> values = scope.rows(n, s_.value);
  copy_rows(View<const float>(bound.values + head * s_.value, n, s_.value, s_.heads * s_.value), values);
  fold_outer(k, state_, chunk, values, bound.state + head * state_.elements());
  fold_gram(k, s_.key, chunk, n, bound.gram + head * gram_.elements());
}

// S and H are edited each for itself.
void RidgeSolver::edit_anchors(const Bound& bound, const StateEdit& edit, Index head,
                               const Kernels& k) const {
  if (!edits_state(edit.segment, edit.every, head)) return;
  if (edit.every == Every::token) {
    const Index rows = (edit.position - 1) % s_.chunk + 1;
    fold_head(bound, head, rows, k);
    // What is in the anchors now must not be read twice.
    std::fill_n(bound.strengths + head * stride_, rows, 0.0f);
    std::fill_n(bound.decays + head * stride_, rows, 0.0f);
  }
  edit_state(edit.segment, edit.every, head, edit.position, 0,
             {bound.state + head * state_.elements(), s_.key, s_.value});
  edit_state(edit.segment, edit.every, head, edit.position, 1,
             {bound.gram + head * gram_.elements(), s_.key, s_.key});
}

}  // namespace plait
