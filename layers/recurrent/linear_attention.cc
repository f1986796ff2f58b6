#include "layers/recurrent/linear_attention.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "layers/recurrent/curvature_conditioned_query.h"
#include "layers/recurrent/decayed_sum.h"
#include "layers/recurrent/output.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/linear_attention.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

using Features = LinearAttentionSettings::Features;

class LinearAttention final : public Layer {
 public:
  LinearAttention(const LinearAttentionSettings& settings, const Parameters& parameters)
      : s_(settings),
        q_(parameters.tensor("q")),
        k_(parameters.tensor("k")),
        v_(parameters.tensor("v")),
        core_(DecayedSum({settings.num_heads, settings.num_kv_heads, settings.num_kv_heads,
                          settings.features(), settings.value_head_dim + (settings.normalise ? 1 : 0),
                          settings.chunk, DecayedSum::Decay::none},
                         0),
              0,
              {settings.num_heads, settings.num_kv_heads, settings.num_kv_heads, settings.features(),
               settings.chunk, Curvature::Decay::none},
              settings.query, query_lambdas(settings.query, parameters)),
        output_(parameters, {settings.num_heads, settings.value_head_dim, GatedOutput::Gate::none,
                             settings.output_norm, static_cast<float>(settings.norm_eps)}),
        fields_(core_.fields()),
        sites_({write_site(settings.num_kv_heads), state_site(settings.num_heads),
                head_site(settings.num_heads, settings.value_head_dim)}) {
    const double d = static_cast<double>(s_.head_dim);
    taylor_scale_ = static_cast<float>(1 / std::sqrt(std::sqrt(d)));
  }

  Signature signature() const override { return {{q_.in()}, output_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    const Compute& compute = context.compute;
    Arena::Scope scope(scratch());
    const View<float> q = scope.rows(x.rows, s_.num_heads * s_.features());
    const View<float> k = scope.rows(x.rows, s_.num_kv_heads * s_.features());
    const View<float> v = scope.rows(x.rows, s_.num_kv_heads * value_width());
    const View<float> write = scope.rows(x.rows, s_.num_kv_heads);
    for_each_block(segments, [&](Index first, Index rows) {
      const auto block = [&](auto all) { return all.slice_rows(first, rows); };
      run_features(q_, block(x), block(q), compute);
      run_features(k_, block(x), block(k), compute);
      run_values(block(x), block(v), compute);
      scale_rows(block(q), static_cast<float>(s_.scale), block(q), compute);
      fill_rows(1, block(write));
    });
    edit_strengths(segments, {s_.num_kv_heads, {}, {}, write, {}});

    const View<float> sums = scope.rows(x.rows, s_.num_heads * value_width());
    core_.run({q, k, v, {}, write, sums}, segments, compute);
    View<float> o = sums;
    if (s_.normalise) {
      o = scope.rows(x.rows, s_.num_heads * s_.value_head_dim);
      for (const Segment& segment : segments) divide(rows_of(segment, sums), rows_of(segment, o));
    }
    output_.run(x, o, segments, ports.output, compute);
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  Index value_width() const { return s_.value_head_dim + (s_.normalise ? 1 : 0); }

  void run_features(const Linear& projection, View<const float> x, View<float> y,
                    const Compute& compute) const {
    const Kernels& k = kernels(compute);
    if (s_.feature_map == Features::taylor2) {
      Arena::Scope scope(scratch());
      const View<float> plain = scope.rows(x.rows, projection.out());
      projection.run(x, plain, compute);
      for (Index r = 0; r < x.rows; ++r)
        for (Index c = 0, h = 0; c < plain.cols; c += s_.head_dim, ++h)
          run_taylor(plain.row(r) + c, y.row(r) + h * s_.features(), k);
      return;
    }
    projection.run(x, y, compute);
    if (s_.feature_map == Features::elu) map_rows(k.elu_plus_one, y, y, compute);
    if (s_.feature_map == Features::relu) map_rows(k.relu, y, y, compute);
  }

  // With u = x / d^(1/4): 1, u_i, u_i^2 / sqrt 2, u_i u_j for i < j, so that phi(q).phi(k) = 1 + t + t^2 / 2.
  void run_taylor(float* x, float* y, const Kernels& k) const {
    const Index d = s_.head_dim;
    *y++ = 1;
    k.scale(x, taylor_scale_, y, d);
    const float* u = y;
    y += d;
    k.square(u, y, d);
    k.scale(y, static_cast<float>(std::numbers::sqrt2 / 2), y, d);
    y += d;
    for (Index i = 0; i + 1 < d; y += d - 1 - i, ++i) k.scale(u + i + 1, u[i], y, d - 1 - i);
  }

  // Values, with a column of ones per head when the weights' sum is wanted: its sum is the denominator.
  void run_values(View<const float> x, View<float> v, const Compute& compute) const {
    if (!s_.normalise) return v_.run(x, v, compute);
    Arena::Scope scope(scratch());
    const View<float> plain = scope.rows(x.rows, v_.out());
    v_.run(x, plain, compute);
    const Index width = s_.value_head_dim;
    for (Index h = 0; h < s_.num_kv_heads; ++h) {
      copy_rows(plain.slice_cols(h * width, width), v.slice_cols(h * (width + 1), width));
      fill_rows(1, v.slice_cols(h * (width + 1) + width, 1));
    }
  }

  void divide(View<const float> sums, View<float> o) const {
    const Index width = s_.value_head_dim;
    for (Index r = 0; r < o.rows; ++r)
      for (Index h = 0; h < s_.num_heads; ++h) {
        const float* sum = sums.row(r) + h * (width + 1);
        const float mass = sum[width] + static_cast<float>(s_.eps);
        for (Index c = 0; c < width; ++c) o(r, h * width + c) = sum[c] / mass;
      }
  }

  LinearAttentionSettings s_;
  Linear q_, k_, v_;
  Conditioned<DecayedSum> core_;
  GatedOutput output_;
  float taylor_scale_ = 1;  // d^(-1/4)
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind linear_attention_kind() {
  Kind kind;
  kind.key = "linear_attention";
  kind.group = "recurrent";
  kind.summary = "attention without softmax as a running sum of phi(k) v'";
  kind.source =
      "Katharopoulos et al., arXiv 2006.16236, equations 9 to 12; taylor2: Arora et al., arXiv 2402.18668";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "value_head_dim": 24, "feature_map": "taylor2"})",
      R"({"num_heads": 2, "head_dim": 24, "value_head_dim": 40, "feature_map": "relu", "output_norm": true})",
      R"({"num_heads": 1, "head_dim": 40, "feature_map": "identity", "normalise": false})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24,
          "query": {"lambda": [0.5, 0, 0.125, 0.25], "center": false}})"};
  kind.tensors = [](Config& config) { return linear_attention_tensors(read_linear_attention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<LinearAttention>(read_linear_attention(config), parameters);
  };
  kind.twin = make_linear_attention_twin;
  return kind;
}

}  // namespace plait
