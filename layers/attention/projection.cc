#include "layers/attention/projection.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/kernels/convolution.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

std::vector<float> optional_vector(const Parameters& parameters, const std::string& name) {
  return parameters.has(name) ? to_float(parameters.tensor(name)) : std::vector<float>();
}

Linear optional_linear(const Parameters& parameters, const std::string& name) {
  return parameters.has(name) ? Linear(parameters.tensor(name)) : Linear();
}

}  // namespace

Projection::Projection(const ProjectionSettings& settings, const Parameters& parameters, Index shift_logs)
    : settings_(settings),
      q_(optional_linear(parameters, "q")),
      k_(optional_linear(parameters, "k")),
      v_(parameters.tensor("v")),
      r_(optional_linear(parameters, "r")),
      q_bias_(optional_vector(parameters, "q_bias")),
      k_bias_(optional_vector(parameters, "k_bias")),
      v_bias_(optional_vector(parameters, "v_bias")),
      r_bias_(optional_vector(parameters, "r_bias")),
      q_norm_(norm_of(parameters, "q_norm")),
      k_norm_(norm_of(parameters, "k_norm")),
      r_norm_(norm_of(parameters, "r_norm")),
      query_factors_(settings.query_factors.begin(), settings.query_factors.end()),
      shift_logs_(shift_logs) {
  if (settings.structure.index() != 0) structured_.emplace(settings, parameters);
  if (settings.rope) rope_ = make_rope(*settings.rope);
  if (settings.shift) {
    k_shift_.emplace(parameters.tensor("k_shift"));
    v_shift_.emplace(parameters.tensor("v_shift"));
  }
}

std::vector<Field> Projection::shift_fields() const {
  if (!settings_.shift) return {};
  Field keys;
  keys.name = "k_before";
  keys.kind = Field::Kind::log;
  keys.shape = {settings_.num_kv_heads * settings_.head_dim};
  keys.window = 2;
  Field values = keys;
  values.name = "v_before";
  values.shape = {settings_.num_value_heads() * settings_.value_head_dim};
  return {keys, values};
}

Projection::Norm Projection::norm_of(const Parameters& parameters, const std::string& name) const {
  if (!settings_.qk_norm) return {};
  Norm norm{optional_vector(parameters, name), optional_vector(parameters, name + "_bias")};
  if (settings_.qk_norm->form == QkNormSettings::Form::one_plus)
    for (float& g : norm.gain) g = 1 + g;
  return norm;
}

Projected Projection::take(Arena::Scope& scope, Index rows) const {
  const ProjectionSettings& s = settings_;
  return {scope.rows(rows, s.num_heads * s.head_dim), scope.rows(rows, s.num_kv_heads * s.head_dim),
          scope.rows(rows, s.num_value_heads() * s.value_head_dim),
          scope.rows(rows, s.num_heads * s.packed_gate)};
}

void Projection::run(View<const float> x, std::span<const Segment> segments, const Projected& y,
                     const Compute& compute) const {
  Arena::Scope outer(scratch());
  const View<float> k_mix = outer.rows(x.rows, k_shift_ ? k_shift_->out() : 0);
  const View<float> v_mix = outer.rows(x.rows, v_shift_ ? v_shift_->out() : 0);
  for_each_block(segments, [&](Index first, Index rows) {
    Arena::Scope scope(scratch());
    const View<const float> block = scaled(x.slice_rows(first, rows), scope, compute);
    const View<float> k = y.k.slice_rows(first, rows), v = y.v.slice_rows(first, rows);
    queries(block, y.q.slice_rows(first, rows), y.gate.slice_rows(first, rows), compute);
    keys(block, k, compute);
    v_.run(block, v, compute);
    if (!v_bias_.empty()) add_bias(v_bias_, v, compute);
    if (settings_.key_multiplier != 1)
      scale_rows(k, static_cast<float>(settings_.key_multiplier), k, compute);
    if (k_shift_) k_shift_->run(block, k_mix.slice_rows(first, rows), compute);
    if (v_shift_) v_shift_->run(block, v_mix.slice_rows(first, rows), compute);
  });
  if (settings_.shift) {
    shift(segments, k_mix, y.k, shift_logs_, compute);
    shift(segments, v_mix, y.v, shift_logs_ + 1, compute);
  }
  for (const Segment& segment : segments) {
    const View<float> q = y.q.slice_rows(segment.first_row, segment.rows);
    prepare(segment, q, 1, q_norm_, compute);
    scale_queries(q, compute);
    prepare(segment, y.k.slice_rows(segment.first_row, segment.rows), settings_.group(), k_norm_, compute);
  }
}

void Projection::shift(std::span<const Segment> segments, View<float> logits, View<float> rows, Index log,
                       const Compute& compute) const {
  const Kernels& k = kernels(compute);
  const Index heads = logits.cols, width = rows.cols / heads;
  Arena::Scope scope(scratch());
  float* before = scope.take(rows.cols);
  for (const Segment& segment : segments) {
    const View<float> own = rows.slice_rows(segment.first_row, segment.rows);
    Log& raw = segment.state->log(log);
    const float* last = nullptr;
    gather_history(raw, segment.position, std::span(&last, 1));
    if (last)
      std::copy_n(last, rows.cols, before);
    else
      std::fill_n(before, rows.cols, 0.0f);
    raw.append_passed(segment.position, own);
    if (segment.edit(Site::conv, Operator::identity)) continue;
    for (Index r = segment.rows - 1; r >= 0; --r) {  // downwards: a row needs the one before as it was
      float* mix = logits.row(segment.first_row + r);
      k.sigmoid(mix, mix, heads);
      const float* previous = r > 0 ? own.row(r - 1) : before;
      for (Index h = 0; h < heads; ++h) {
        float* u = own.row(r) + h * width;
        k.scale(u, 1 - mix[h], u, width);
        k.add_scaled(mix[h], previous + h * width, u, width);
      }
    }
  }
}

View<const float> Projection::scaled(View<const float> x, Arena::Scope& scope, const Compute& compute) const {
  if (settings_.input_multiplier == 1) return x;
  const View<float> y = scope.rows(x.rows, x.cols);
  scale_rows(x, static_cast<float>(settings_.input_multiplier), y, compute);
  return y;
}

void Projection::keys(View<const float> x, View<float> k, const Compute& compute) const {
  if (structured_) return structured_->keys(x, k, compute);
  k_.run(x, k, compute);
  if (!k_bias_.empty()) add_bias(k_bias_, k, compute);
}

void Projection::scale_queries(View<float> q, const Compute& compute) const {
  if (query_factors_.empty()) return;
  const Kernels& k = kernels(compute);
  for_each_row(0, q.rows, compute.threads, [&](Index r) {
    for (Index c = 0; c < q.cols; c += settings_.head_dim)
      k.multiply(q.row(r) + c, query_factors_.data(), q.row(r) + c, settings_.head_dim);
  });
}

// A packed gate lies behind its query or its group's queries: both are moved apart, so that what follows sees
// plain heads.
void Projection::queries(View<const float> x, View<float> q, View<float> gate, const Compute& compute) const {
  if (structured_) return structured_->queries(x, q, compute);
  const Index d = settings_.packed_heads() * settings_.head_dim,
              g = settings_.packed_heads() * settings_.packed_gate;
  if (g == 0) {
    q_.run(x, q, compute);
    if (!q_bias_.empty()) add_bias(q_bias_, q, compute);
    return;
  }
  Arena::Scope scope(scratch());
  const View<float> packed = scope.rows(x.rows, q_.out());
  q_.run(x, packed, compute);
  if (!q_bias_.empty()) add_bias(q_bias_, packed, compute);
  for_each_row(0, x.rows, compute.threads, [&](Index r) {
    for (Index i = 0; i * (d + g) < packed.cols; ++i) {
      const float* block = packed.row(r) + i * (d + g);
      std::copy_n(block, d, q.row(r) + i * d);
      std::copy_n(block + d, g, gate.row(r) + i * g);
    }
  });
}

// Norm and rotation of a segment's heads, each of which serves `group` query heads. rows [n, heads *
// head_dim]
void Projection::prepare(const Segment& segment, View<float> rows, Index group, const Norm& norm,
                         const Compute& compute) const {
  const Index d = settings_.head_dim, heads = rows.cols / d;
  const Gains gains{norm.gain, norm.bias};
  if (!segment.edits || (!segment.edits->has(Site::qk_norm) && !segment.edits->has(Site::position))) {
    prepare_heads(rows, heads, gains, nullptr, nullptr, nullptr, segment.position, compute);
    return;
  }
  const bool own = settings_.qk_norm && settings_.qk_norm->per_head;
  for (Index h = 0; h < heads; ++h)
    prepare_heads(rows.slice_cols(h * d, d), 1, own ? gains.columns(h * d, d) : gains,
                  shared_edit(segment, Site::qk_norm, Operator::off, h, group),
                  shared_edit(segment, Site::position, Operator::none, h, group),
                  shared_edit(segment, Site::position, Operator::shift, h, group), segment.position, compute);
}

void Projection::prepare_heads(View<float> rows, Index heads, const Gains& gains, const Edit* no_norm,
                               const Edit* no_rope, const Edit* shift, Index position,
                               const Compute& compute) const {
  if (!gains.gain.empty() && !no_norm) normalise(rows, gains, compute);
  if (rope_ && !no_rope)
    rope_->apply(rows, heads * settings_.rope_slices,
                 static_cast<double>(position) + (shift ? shift->value : 0.0), compute);
}

Projection::Gains Projection::Gains::columns(Index first, Index count) const {
  const auto part = [&](std::span<const float> all) {
    return all.empty() ? all : all.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
  };
  return {part(gain), part(bias)};
}

// Heads one behind the other, each in the groups of the settings.
void Projection::normalise(View<float> rows, const Gains& gains, const Compute& compute) const {
  const Index d = settings_.head_dim;
  const auto eps = static_cast<float>(settings_.qk_norm->eps);
  const bool layer = settings_.qk_norm->type == QkNormSettings::Type::layer;
  const auto run = [&](View<float> y, Index group, const Gains& own) {
    if (layer)
      layer_norm(y, group, eps, own.gain, own.bias, y, compute);
    else
      rms_norm(y, group, eps, own.gain, y, compute);
  };
  if (settings_.norm_groups.empty()) return run(rows, d, gains);
  const bool shared = static_cast<Index>(gains.gain.size()) == d;
  for (Index head = 0; head < rows.cols; head += d) {
    Index first = 0;
    for (const Index group : settings_.norm_groups) {
      run(rows.slice_cols(head + first, group), group, gains.columns((shared ? 0 : head) + first, group));
      first += group;
    }
  }
}

void Projection::second_queries(View<const float> x, std::span<const Segment> segments, View<float> r,
                                const Compute& compute) const {
  for_each_block(segments, [&](Index first, Index rows) {
    const View<float> block = r.slice_rows(first, rows);
    r_.run(x.slice_rows(first, rows), block, compute);
    if (!r_bias_.empty()) add_bias(r_bias_, block, compute);
  });
  for (const Segment& segment : segments)
    prepare(segment, r.slice_rows(segment.first_row, segment.rows), 1, r_norm_, compute);
}

const Edit* shared_edit(const Segment& segment, Site site, Operator op, Index kv, Index group) {
  const Edit* edit = segment.edit(site, op, kv * group);
  for (Index h = kv * group + 1; h < (kv + 1) * group; ++h) {
    const Edit* other = segment.edit(site, op, h);
    if (!edit != !other)
      fail("edit ", name_of(site), "/", name_of(op), " of '", (edit ? edit : other)->node, "' names head ",
           edit ? kv * group : h, " but not head ", edit ? h : kv * group,
           ", which shares its keys and values; name all query heads of a group or none");
  }
  return edit;
}

void add_projection_sites(const ProjectionSettings& settings, std::vector<SiteSpec>& sites) {
  if (settings.rope) sites.push_back({Site::position, {Operator::none, Operator::shift}, settings.num_heads});
  if (settings.shift) sites.push_back({Site::conv, {Operator::identity}});
  if (settings.qk_norm) sites.push_back({Site::qk_norm, {Operator::off}, settings.num_heads});
}

void add_cache_sites(Index heads, std::vector<SiteSpec>& sites) {
  sites.push_back({Site::score, {Operator::knockout, Operator::zero}, heads});
  sites.push_back({Site::window, {Operator::set}, heads});
  sites.push_back({Site::sinks, {Operator::mask}, heads});
}

}  // namespace plait
