#include <algorithm>

#include "layers/attention/polynomial_core.h"
#include "layers/attention/power_features.h"
#include "runtime/base/arena.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "runtime/run/state_matrix.h"

namespace plait {
namespace {

// Where the columns of a panel of S begin: the panels of 32 value columns lie one after the other, each
// [features][its columns], the last one as narrow as it is.
Index panel_begin(Index features, Index column) { return features * column; }

template <class Body>
void for_each_panel(Index columns, Body&& body) {
  for (Index c = 0; c < columns; c += kPanel) body(c, std::min(kPanel, columns - c));
}

class RecurrentPolynomial final : public PolynomialCore {
 public:
  RecurrentPolynomial(const PolynomialAttentionSettings& settings, const Grids& grids)
      : heads_(settings.projection),
        decay_(settings.decay),
        grid_(settings.grid > 0 ? settings.grid : grids.chunk),
        offset_(static_cast<float>(settings.offset)),
        relative_eps_(static_cast<float>(settings.relative_eps)),
        near_dim_(settings.near_dim),
        open_degree_(settings.near_dim > 0 ? settings.near_degree : settings.degree),
        features_(settings.projection.head_dim, settings.degree),
        scale_(settings) {
    const Index size = features_.size();
    s_ = add_field("S", Field::Kind::anchor, {states(), size, heads_.value_head_dim});
    if (scale_.needs_mass()) z_ = add_field("Z", Field::Kind::anchor, {states(), size});
    k_ = add_field("k", Field::Kind::open, {heads_.num_kv_heads * heads_.head_dim}, Field::Order::columns);
    v_ = add_field("v", Field::Kind::open, {heads_.num_kv_heads * heads_.value_head_dim});
    if (decays()) g_ = add_field("g", Field::Kind::open, {states()});
    if (near_dim_ > 0)
      near_k_ =
          add_field("near_k", Field::Kind::open, {heads_.num_kv_heads * near_dim_}, Field::Order::columns);
  }

  std::span<const Field> fields() const override { return fields_; }

  // Chunk by chunk: all segments' rows of their current chunk are read in parallel, then complete chunks are
  // folded.
  void run(std::span<const Segment> segments, const PolynomialRows& rows, View<float> out,
           const Compute& compute) const override {
    std::vector<Index> done(segments.size(), 0);
    for (;;) {
      std::vector<Step> steps;
      for (std::size_t i = 0; i < segments.size(); ++i) {
        const Index begin = segments[i].position + done[i];
        const Index count = std::min(segments[i].rows - done[i], grid_ - begin % grid_);
        if (count > 0) steps.push_back(append(segments[i], done[i], count, rows));
        done[i] += count;
      }
      if (steps.empty()) return;
      parallel_for(compute.threads, static_cast<Index>(steps.size()) * states(), [&](Index i) {
        read(steps[static_cast<std::size_t>(i / states())], i % states(), rows, out, kernels(compute));
      });
      fold_complete(steps, compute);
    }
  }

  void fold(State& state, Index, const Compute& compute) const override {
    fold_all({target_of(state)}, compute);
  }

  // Keys are shared by a group, so a state cannot take up some rows of its chunk before the others do.
  SiteSpec state_site() const override {
    SiteSpec site = row_state_site(heads_.num_heads);
    for (const Operator op : {Operator::rank, Operator::noise, Operator::cast}) site.operators.push_back(op);
    site.finest = Every::chunk;
    return site;
  }

 private:
  // A state's chunk as it is read. Anchors as of the chunk's begin, open rows up to the step's last.
  struct Chunk {
    const float *S = nullptr, *Z = nullptr, *k = nullptr, *v = nullptr, *g = nullptr, *near_k = nullptr;
  };
  // Rows of one segment inside one chunk.
  struct Step {
    const Segment* segment;
    Chunk chunk;
    Index position, first_row, rows;
  };
  struct Target {
    Chunk chunk;
    float *S = nullptr, *Z = nullptr;
    const Segment* segment = nullptr;  // whose rows completed the chunk that ends at `boundary`; null: a hole
    Index boundary = 0;
  };

  using Decay = PolynomialAttentionSettings::Decay;
  bool decays() const { return decay_ != Decay::none; }
  // With a scalar decay every query head forgets at its own rate and has a state; otherwise the heads of a
  // group share one.
  Index states() const { return decay_ == Decay::scalar ? heads_.num_heads : heads_.num_kv_heads; }
  Index readers() const { return heads_.num_heads / states(); }
  Index kv_of(Index state) const { return decay_ == Decay::scalar ? state / heads_.group() : state; }
  Index stride() const { return round_up(grid_, kPanel); }  // of the open keys

  Index add_field(const std::string& name, Field::Kind kind, Shape shape,
                  Field::Order order = Field::Order::rows) {
    Field field;
    field.name = name;
    field.kind = kind;
    field.shape = std::move(shape);
    field.order = order;
    field.grid = grid_;
    fields_.push_back(field);
    return static_cast<Index>(fields_.size()) - 1;
  }

  Chunk chunk_of(const State& state) const {
    Chunk chunk;
    chunk.S = state.peek(s_);
    if (scale_.needs_mass()) chunk.Z = state.peek(z_);
    chunk.k = state.peek(k_);
    chunk.v = state.peek(v_);
    if (decays()) chunk.g = state.peek(g_);
    if (near_dim_ > 0) chunk.near_k = state.peek(near_k_);
    return chunk;
  }

  Target target_of(State& state) const {
    Target target;
    target.S = state.anchor(s_);
    if (scale_.needs_mass()) target.Z = state.anchor(z_);
    target.chunk = chunk_of(state);
    return target;
  }

  // Writes `count` rows of a segment from row `done` on, all in one chunk, to the open fields.
  Step append(const Segment& segment, Index done, Index count, const PolynomialRows& rows) const {
    State& state = *segment.state;
    float* k = state.open(k_);
    float* v = state.open(v_);
    float* g = decays() ? state.open(g_) : nullptr;
    float* near_k = near_dim_ > 0 ? state.open(near_k_) : nullptr;
    const Index position = segment.position + done, first = segment.first_row + done;
    for (Index r = 0; r < count; ++r) {
      const Index at = (position + r) % grid_;
      for (Index c = 0; c < rows.k.cols; ++c) k[c * stride() + at] = rows.k(first + r, c);
      for (Index c = 0; near_k && c < rows.near_k.cols; ++c)
        near_k[c * stride() + at] = rows.near_k(first + r, c);
      std::copy_n(rows.v.row(first + r), rows.v.cols, v + at * rows.v.cols);
      if (g) std::copy_n(rows.decay.row(first + r), rows.decay.cols, g + at * rows.decay.cols);
    }
    return {&segment, chunk_of(state), position, first, count};
  }

  // Sums of a state's log decays from the chunk's begin, f64. sums [count]
  void decay_sums(const Chunk& chunk, Index state, Index count, double* sums) const {
    double sum = 0;
    for (Index j = 0; j < count; ++j) sums[j] = sum += static_cast<double>(chunk.g[j * states() + state]);
  }

  void read(const Step& step, Index state, const PolynomialRows& rows, View<float> out,
            const Kernels& k) const {
    Arena::Scope scope(scratch());
    const Index dv = heads_.value_head_dim, n = step.rows * readers();
    const Index first_head = state * readers(), begin = step.position % grid_, end = begin + step.rows;
    const View<float> q = scope.rows(n, heads_.head_dim), near_q = scope.rows(n, near_dim_),
                      y = scope.rows(n, dv);
    float* mass = scope.take(n);
    double* sums = scope.take<double>(grid_);
    gather_heads(step, first_head, rows.q, q);
    if (near_dim_ > 0) gather_heads(step, first_head, rows.near_q, near_q);
    if (decays()) decay_sums(step.chunk, state, end, sums);
    read_anchor(step.chunk, state, q, y, mass, k);
    if (decays()) discount(sums + begin, y, mass, k);
    read_open(step, state, near_dim_ > 0 ? near_q : q, sums, y, mass, k);
    for (Index i = 0; i < n; ++i) {
      const Index r = i % step.rows, head = first_head + i / step.rows;
      const float factor = scale_.factor(step.position + r, head, mass[i], k);
      k.scale(y.row(i), factor, out.row(step.first_row + r) + head * dv, dv);
    }
  }

  // Heads outermost: the rows of one head meet one key more each.
  static void gather_heads(const Step& step, Index first_head, View<const float> from, View<float> q) {
    for (Index i = 0; i < q.rows; ++i)
      std::copy_n(from.row(step.first_row + i % step.rows) + (first_head + i / step.rows) * q.cols, q.cols,
                  q.row(i));
  }

  // y = phi(q)' S, mass = phi(q)' Z: one chain over the features ascending, block by block.
  void read_anchor(const Chunk& chunk, Index state, View<const float> q, View<float> y, float* mass,
                   const Kernels& k) const {
    Arena::Scope scope(scratch());
    const Index n = q.rows, dv = heads_.value_head_dim, size = features_.size();
    const View<float> lower = scope.rows(n, features_.lower_size());
    const View<float> phi = scope.rows(n, features_.longest_block());
    const float* S = chunk.S + state * size * dv;
    for (Index i = 0; i < n; ++i) features_.lower(q.row(i), lower.row(i), k);
    std::fill_n(mass, n, 0.0f);
    for (const PowerFeatures::Block& block : features_.blocks()) {
      for (Index i = 0; i < n; ++i) {
        features_.block(block, q.row(i), lower.row(i), phi.row(i), k);
        k.multiply(phi.row(i), features_.weights().data() + block.first, phi.row(i), block.count);
      }
      const Start start = block.first == 0 ? Start::zero : Start::present;
      for_each_panel(dv, [&](Index c, Index columns) {
        const float* panel = S + panel_begin(size, c) + block.first * columns;
        k.panel(n, block.count, columns, phi.data, phi.stride, panel, columns, y.data + c, y.stride, start);
      });
      if (chunk.Z)
        k.panel(n, block.count, 1, phi.data, phi.stride, chunk.Z + state * size + block.first, 1, mass, 1,
                start);
    }
  }

  // What the anchor gave is as old as the chunk's begin. sums [rows of one reader]
  void discount(const double* sums, View<float> y, float* mass, const Kernels& k) const {
    Arena::Scope scope(scratch());
    const Index rows = y.rows / readers();
    float* factors = scope.take(rows);
    k.exp_difference(sums, 0.0, factors, rows);
    for (Index i = 0; i < y.rows; ++i) k.scale(y.row(i), factors[i % rows], y.row(i), y.cols);
    for (Index i = 0; i < y.rows; i += rows) k.multiply(mass + i, factors, mass + i, rows);
  }

  // Adds the chunk's own keys by the quadratic formula.
  void read_open(const Step& step, Index state, View<const float> q, const double* sums, View<float> y,
                 float* mass, const Kernels& k) const {
    Arena::Scope scope(scratch());
    const Index n = q.rows, d = q.cols, dv = heads_.value_head_dim, kv = kv_of(state);
    const float* keys = near_dim_ > 0 ? step.chunk.near_k : step.chunk.k;
    const Index begin = step.position % grid_, end = begin + step.rows;
    const View<float> w = scope.rows(n, stride());
    for (Index c = 0; c < end; c += kPanel)
      k.panel(n, d, std::min(kPanel, end - c), q.data, q.stride, keys + kv * d * stride() + c, stride(),
              w.data + c, w.stride, Start::zero);
    for (Index i = 0; i < n; ++i) mass[i] += weigh(begin + i % step.rows, sums, w.row(i), k);
    const Index width = heads_.num_kv_heads * dv;
    for (Index head = 0; head < readers(); ++head)
      for_each_panel(dv, [&](Index c, Index columns) {
        k.panel_triangular(step.rows, begin + 1, columns, w.row(head * step.rows), w.stride,
                           step.chunk.v + kv * dv + c, width, y.row(head * step.rows) + c, y.stride,
                           Start::present);
      });
  }

  // w [at + 1]: dot products with the chunk's keys up to the row's own -> weights; returns their sum and what
  // is added to it.
  float weigh(Index at, const double* sums, float* w, const Kernels& k) const {
    const Index count = at + 1;
    if (offset_ > 0) {
      k.square(w, w, count);  // the root of the square is |w|
      k.sqrt(w, w, count);
      k.add_scalar(w, offset_, w, count);
    }
    raise(open_degree_, w, count, k);
    if (decays()) {
      Arena::Scope scope(scratch());
      float* decay = scope.take(count);
      k.exp_difference_from(sums[at], sums, decay, count);
      k.multiply(w, decay, w, count);
    }
    if (!scale_.needs_mass()) return 0;
    const float sum = k.sum(w, count);
    return relative_eps_ > 0 ? sum + relative_eps_ * k.maximum(w, count) : sum;
  }

  void fold_complete(std::span<const Step> steps, const Compute& compute) const {
    std::vector<Target> targets;
    for (const Step& step : steps) {
      const Index end = step.position + step.rows;
      if (end % grid_ != 0) continue;
      step.segment->state->before_fold(end, step.segment->position + step.segment->rows);
      targets.push_back(target_of(*step.segment->state));
      targets.back().segment = step.segment;
      targets.back().boundary = end;
    }
    fold_all(targets, compute);
  }

  void fold_all(const std::vector<Target>& targets, const Compute& compute) const {
    parallel_for(compute.threads, static_cast<Index>(targets.size()) * states(), [&](Index i) {
      const Target& target = targets[static_cast<std::size_t>(i / states())];
      fold_state(target, i % states(), kernels(compute));
      if (target.segment) edit_anchors(target, i % states());
    });
  }

  // S, and Z as a matrix of one row, each for itself.
  void edit_anchors(const Target& target, Index state) const {
    const Segment& segment = *target.segment;
    if (!state_edited(segment, state)) return;
    const Index dv = heads_.value_head_dim, size = features_.size();
    edit_state(segment, Every::chunk, state * readers(), target.boundary, 0,
               {target.S + state * size * dv, size, dv, StateMatrix::Last::narrow});
    if (target.Z)
      edit_state(segment, Every::chunk, state * readers(), target.boundary, 1,
                 {target.Z + state * size, 1, size, StateMatrix::Last::narrow});
  }

  // A state that several heads read is edited for all of them or for none.
  bool state_edited(const Segment& segment, Index state) const {
    const bool edited = edits_state(segment, Every::chunk, state * readers());
    for (Index h = state * readers() + 1; h < (state + 1) * readers(); ++h)
      if (edits_state(segment, Every::chunk, h) != edited)
        fail("an edit of the state names only some of the heads ", state * readers(), " to ",
             (state + 1) * readers() - 1, ", which share one; name all of them or none");
    return edited;
  }

  // S = e^G S + sum_j m(k_j) (e^(G - G_j) v_j)', Z = e^G Z + sum_j m(k_j) e^(G - G_j), tokens ascending.
  void fold_state(const Target& target, Index state, const Kernels& k) const {
    Arena::Scope scope(scratch());
    const Index dv = heads_.value_head_dim, size = features_.size(), kv = kv_of(state);
    float* S = target.S + state * size * dv;
    float* Z = target.Z ? target.Z + state * size : nullptr;
    const View<float> values = scope.rows(grid_, dv);
    float* factors = scope.take(grid_);
    for (Index j = 0; j < grid_; ++j)
      std::copy_n(target.chunk.v + (j * heads_.num_kv_heads + kv) * dv, dv, values.row(j));
    std::fill_n(factors, grid_, 1.0f);
    if (decays()) {
      double* sums = scope.take<double>(grid_);
      decay_sums(target.chunk, state, grid_, sums);
      k.exp_difference_from(sums[grid_ - 1], sums, factors, grid_);
      for (Index j = 0; j < grid_; ++j) k.scale(values.row(j), factors[j], values.row(j), dv);
      float kept = 0;
      k.exp_difference(sums + grid_ - 1, 0.0, &kept, 1);
      k.scale(S, kept, S, size * dv);
      if (Z) k.scale(Z, kept, Z, size);
    }
    const float* keys = target.chunk.k + kv * heads_.head_dim * stride();
    float* lower = scope.take(features_.lower_size() * grid_);
    features_.lower_columns(grid_, keys, stride(), lower, k);
    for (const PowerFeatures::Block& block : features_.blocks()) {
      Arena::Scope own(scratch());
      float* m = own.take(block.count * grid_);  // [block.count][grid]
      features_.block_columns(block, grid_, keys, stride(), lower, m, k);
      for_each_panel(dv, [&](Index c, Index columns) {
        float* panel = S + panel_begin(size, c) + block.first * columns;
        k.panel(block.count, grid_, columns, m, grid_, values.data + c, values.stride, panel, columns,
                Start::present);
      });
      if (Z) k.panel(block.count, grid_, 1, m, grid_, factors, 1, Z + block.first, 1, Start::present);
    }
  }

  ProjectionSettings heads_;
  Decay decay_;
  Index grid_;
  float offset_, relative_eps_;
  Index near_dim_, open_degree_;
  PowerFeatures features_;
  PolynomialScale scale_;
  std::vector<Field> fields_;
  Index s_ = 0, z_ = 0, k_ = 0, v_ = 0, g_ = 0, near_k_ = 0;
};

}  // namespace

std::unique_ptr<PolynomialCore> make_recurrent_polynomial(const PolynomialAttentionSettings& settings,
                                                          const Grids& grids) {
  return std::make_unique<RecurrentPolynomial>(settings, grids);
}

}  // namespace plait
