#include "layers/recurrent/inner_optimiser.h"

#include <algorithm>

#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"

namespace plait {

InnerOptimiser::InnerOptimiser(Settings settings, Index first_field)
    : s_(std::move(settings)),
      state_{s_.width, s_.width},
      stride_(round_up(s_.mini_batch, kPanel)),
      first_field_(first_field) {}

std::vector<Field> InnerOptimiser::fields() const {
  using Kind = Field::Kind;
  using Order = Field::Order;
  const Index grid = s_.mini_batch, inner = s_.heads * s_.width;
  Field w =
      gridded_field("W", Kind::anchor, {s_.heads, state_.panels(), s_.width, kPanel}, Order::rows, grid);
  w.initial.assign(static_cast<std::size_t>(s_.heads * state_.elements()), 0.0f);
  for (Index h = 0; h < s_.heads; ++h)
    state_.for_each_panel([&](Index p, Index column, Index columns) {
      for (Index i = 0; i < s_.width; ++i)
        std::copy_n(s_.w0.begin() + (h * s_.width + i) * s_.width + column, columns,
                    w.initial.begin() + h * state_.elements() + (p * s_.width + i) * kPanel);
    });
  Field b = gridded_field("b", Kind::anchor, {s_.heads, s_.width}, Order::rows, grid);
  b.initial = s_.b0;
  return {w, b, gridded_field("k", Kind::open, {inner}, Order::columns, grid),
          gridded_field("g", Kind::open, {inner}, Order::rows, grid),
          gridded_field("lr", Kind::open, {s_.heads}, Order::columns, grid)};
}

InnerOptimiser::Bound InnerOptimiser::bind(State& state) const {
  return {state.anchor(first_field_), state.anchor(first_field_ + 1), state.open(first_field_ + 2),
          state.open(first_field_ + 3), state.open(first_field_ + 4)};
}

void InnerOptimiser::run(const Rows& rows, std::span<const Segment> segments, const Compute& compute) const {
  ChunkWalk<InnerOptimiser>(*this, segments).run(rows, compute);
}

void InnerOptimiser::fold(State& state, const Compute& compute) const { fold_chunk(*this, state, compute); }

void InnerOptimiser::absorb(const Bound& bound, const ChunkRows& part, Index head, const Rows& rows,
                            const Kernels& k) const {
  const Index n = part.rows, first = part.first, end = part.end(), width = s_.width;
  const auto own = [&](auto all) { return all.slice_rows(part.row, n).slice_cols(head * width, width); };
  Arena::Scope scope(scratch());
  const View<float> inputs = scope.rows(2 * n, width), z = scope.rows(2 * n, width);
  copy_rows(own(rows.k), inputs.slice_rows(0, n));
  copy_rows(own(rows.q), inputs.slice_rows(n, n));
  float* columns = bound.keys + head * width * stride_;
  float* rates = bound.rates + head * stride_;
  write_columns(inputs.slice_rows(0, n), first, columns, stride_);
  for (Index i = 0; i < n; ++i) rates[first + i] = rows.rate(part.row + i, head);

  // Both predictions at the weights of the mini-batch's start.
  read_state(k, state_, inputs, bound.w + head * state_.elements(), z);
  for (Index i = 0; i < 2 * n; ++i) k.add(z.row(i), bound.b + head * width, z.row(i), width);
  const View<float> gradients = scope.rows(end, width);
  const View<float> open(bound.gradients + head * width, s_.mini_batch, width, s_.heads * width);
  copy_rows(open.slice_rows(0, first), gradients.slice_rows(0, first));
  for (Index i = 0; i < n; ++i)
    differentiate(head, z.row(i), own(rows.target).row(i), gradients.row(first + i), k);
  copy_rows(gradients.slice_rows(first, n), open.slice_rows(first, n));

  // The steps of rows j <= i: q (-eta_ij k_j' g_j) - eta_ij g_j, eta_ij = token_i rate_j.
  const View<float> weights = scope.rows(n, end);
  score(k, inputs.slice_rows(n, n), columns, stride_, end, weights);
  for (Index i = 0; i < n; ++i) {
    const Index count = first + i + 1;
    float* row = weights.row(i);
    k.add_scalar(row, 1, row, count);
    k.multiply(row, rates, row, count);
    k.scale(row, -s_.token_factors[static_cast<std::size_t>(first + i)], row, count);
  }
  combine_triangular(k, first, weights, gradients, z.slice_rows(n, n));
  copy_rows(z.slice_rows(n, n), own(rows.z));
}

void InnerOptimiser::differentiate(Index head, const float* z, const float* target, float* gradient,
                                   const Kernels& k) const {
  const Index n = s_.width;
  if (!s_.norm) {
    k.subtract(z, target, gradient, n);
    return;
  }
  const auto size = static_cast<float>(n);
  const float* gain = s_.gain.data() + head * n;
  const float* bias = s_.bias.data() + head * n;
  Arena::Scope scope(scratch());
  float* standard = scope.take(n);  // (z - mean) / deviation
  k.add_scalar(z, -(k.sum(z, n) / size), standard, n);
  const float variance = k.sum_squares(standard, n) / size + s_.eps;
  float deviation = 0;
  k.sqrt(&variance, &deviation, 1);
  for (Index i = 0; i < n; ++i) standard[i] /= deviation;
  for (Index i = 0; i < n; ++i) gradient[i] = (gain[i] * standard[i] + bias[i] - target[i]) * gain[i];
  const float sum = k.sum(gradient, n), product = k.dot(gradient, standard, n), divisor = size * deviation;
  for (Index i = 0; i < n; ++i) gradient[i] = (size * gradient[i] - sum - standard[i] * product) / divisor;
}

// W and b are edited each for itself. Between the rows of a mini-batch there are no weights to edit: a row's
// factor on the learning rates belongs to all steps it reads.
void InnerOptimiser::edit_anchors(const Bound& bound, const StateEdit& edit, Index head,
                                  const Kernels&) const {
  assert(edit.every == Every::chunk);
  edit_state(edit.segment, edit.every, head, edit.position, 0,
             {bound.w + head * state_.elements(), s_.width, s_.width});
  edit_state(edit.segment, edit.every, head, edit.position, 1,
             {bound.b + head * s_.width, 1, s_.width, StateMatrix::Last::narrow});
}

void InnerOptimiser::fold(const Bound& bound, Index head, const Kernels& k) const {
  const Index n = s_.mini_batch, width = s_.width;
  Arena::Scope scope(scratch());
  const View<float> steps = scope.rows(n, width);  // -eta_last,j g_j
  float* factors = scope.take(n);
  float* ones = scope.take(n);
  k.scale(bound.rates + head * stride_, -s_.token_factors.back(), factors, n);
  std::fill_n(ones, n, 1.0f);
  for (Index j = 0; j < n; ++j)
    k.scale(bound.gradients + (j * s_.heads + head) * width, factors[j], steps.row(j), width);
  write_state(k, state_, {bound.keys + head * width * stride_, width, n, stride_}, steps, nullptr,
              bound.w + head * state_.elements());
  k.combine(n, width, ones, steps.data, width, bound.b + head * width, Start::present);
}

}  // namespace plait
