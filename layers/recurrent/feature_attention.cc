#include "layers/recurrent/feature_attention.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "layers/recurrent/curvature_conditioned_query.h"
#include "layers/recurrent/decayed_sum.h"
#include "layers/recurrent/output.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

using Division = FeatureAttentionSettings::Division;

GatedOutput::Settings output_of(const FeatureAttentionSettings& s) {
  return {s.num_heads, s.value_head_dim, OutputGate(), s.output_norm, static_cast<float>(s.norm_eps), s.bias};
}

// A projection with its bias, if there is one.
class Projected {
 public:
  Projected(const Parameters& parameters, const char* name, bool bias) : weight_(parameters.tensor(name)) {
    if (bias) bias_ = to_float(parameters.tensor(cat(name, "_bias")));
  }
  Index in() const { return weight_.in(); }
  Index out() const { return weight_.out(); }
  void run(View<const float> x, View<float> y, std::span<const Segment> segments,
           const Compute& compute) const {
    for_each_block(segments, [&](Index first, Index rows) {
      weight_.run(x.slice_rows(first, rows), y.slice_rows(first, rows), compute);
      if (!bias_.empty()) add_bias(bias_, y.slice_rows(first, rows), compute);
    });
  }

 private:
  Linear weight_;
  std::vector<float> bias_;
};

class FeatureAttention final : public Layer {
 public:
  FeatureAttention(const FeatureAttentionSettings& settings, std::unique_ptr<FeatureMap> map,
                   const Parameters& parameters)
      : s_(settings),
        q_(parameters, "q", settings.bias),
        k_(parameters, "k", settings.bias),
        v_(parameters, "v", settings.bias),
        map_(std::move(map)),
        core_(DecayedSum({settings.num_heads, settings.num_kv_heads, settings.num_kv_heads, map_->width(),
                          value_width(), settings.chunk, DecayedSum::Decay::none, map_->root()},
                         0),
              0,
              {settings.num_heads, settings.num_kv_heads, settings.num_kv_heads, map_->width(),
               settings.chunk, Curvature::Decay::none},
              settings.query, query_lambdas(settings.query, parameters)),
        output_(parameters, output_of(settings)),
        fields_(core_.fields()),
        sites_({write_site(settings.num_kv_heads), state_site(settings.num_heads),
                head_site(settings.num_heads, settings.value_head_dim)}) {
    assert(map_->root() == 0 || (settings.scale == 1 && !settings.query));
  }

  Signature signature() const override { return {{q_.in()}, output_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    const Compute& compute = context.compute;
    Arena::Scope scope(scratch());
    const View<float> q = scope.rows(x.rows, s_.num_heads * map_->row());
    const View<float> k = scope.rows(x.rows, s_.num_kv_heads * map_->row());
    const View<float> v = scope.rows(x.rows, s_.num_kv_heads * value_width());
    const View<float> write = scope.rows(x.rows, s_.num_kv_heads);
    run_features(q_, FeatureMap::Side::query, x, q, segments, compute);
    run_features(k_, FeatureMap::Side::key, x, k, segments, compute);
    run_values(x, v, segments, compute);
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = q.slice_rows(first, rows);
      scale_rows(block, static_cast<float>(s_.scale), block, compute);
      fill_rows(1, write.slice_rows(first, rows));
    });
    edit_strengths(segments, {s_.num_kv_heads, {}, {}, write, {}});

    const View<float> sums = scope.rows(x.rows, s_.num_heads * value_width());
    core_.run({q, k, v, {}, write, sums}, segments, compute);
    View<float> o = sums;
    if (s_.normalises()) {
      o = scope.rows(x.rows, s_.num_heads * s_.value_head_dim);
      for (const Segment& segment : segments) divide(rows_of(segment, sums), rows_of(segment, o));
    }
    output_.run(x, o, segments, ports.output, compute);
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  Index value_width() const { return s_.value_head_dim + (s_.normalises() ? 1 : 0); }

  void run_features(const Projected& projection, FeatureMap::Side side, View<const float> x, View<float> y,
                    std::span<const Segment> segments, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> plain = scope.rows(x.rows, projection.out());
    projection.run(x, plain, segments, compute);
    map_->run(side, segments, plain, y, compute);
  }

  // Values, with a column of ones per head when the weights' sum is wanted: its sum is the denominator.
  void run_values(View<const float> x, View<float> v, std::span<const Segment> segments,
                  const Compute& compute) const {
    if (!s_.normalises()) return v_.run(x, v, segments, compute);
    Arena::Scope scope(scratch());
    const View<float> plain = scope.rows(x.rows, v_.out());
    v_.run(x, plain, segments, compute);
    const Index width = s_.value_head_dim;
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> from = plain.slice_rows(first, rows), to = v.slice_rows(first, rows);
      for (Index h = 0; h < s_.num_kv_heads; ++h) {
        copy_rows(from.slice_cols(h * width, width), to.slice_cols(h * (width + 1), width));
        fill_rows(1, to.slice_cols(h * (width + 1) + width, 1));
      }
    });
  }

  void divide(View<const float> sums, View<float> o) const {
    const Index width = s_.value_head_dim;
    for (Index r = 0; r < o.rows; ++r)
      for (Index h = 0; h < s_.num_heads; ++h) {
        const float* sum = sums.row(r) + h * (width + 1);
        const float by = divisor(sum[width]);
        for (Index c = 0; c < width; ++c) o(r, h * width + c) = sum[c] / by;
      }
  }
  float divisor(float mass) const {
    const float eps = static_cast<float>(s_.eps);
    if (s_.division == Division::plus_eps) return mass + eps;
    if (s_.division == Division::at_least_eps) return std::max(mass, eps);
    return mass > 0 ? mass : std::numeric_limits<float>::infinity();
  }

  FeatureAttentionSettings s_;
  Projected q_, k_, v_;
  std::unique_ptr<FeatureMap> map_;
  Conditioned<DecayedSum> core_;
  GatedOutput output_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

std::unique_ptr<Layer> make_feature_attention(const FeatureAttentionSettings& settings,
                                              std::unique_ptr<FeatureMap> map, const Parameters& parameters) {
  return std::make_unique<FeatureAttention>(settings, std::move(map), parameters);
}

}  // namespace plait
