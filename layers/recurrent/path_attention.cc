#include "layers/recurrent/path_attention.h"

#include <optional>

#include "layers/attention/projection.h"
#include "layers/attention/scalar_decay.h"
#include "layers/recurrent/inputs.h"
#include "layers/recurrent/path_walk.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/path_attention.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"

namespace plait {
namespace {

constexpr float kNormEps = 1e-6f;  // of the l2 norm of w

class PathAttention final : public Layer {
 public:
  PathAttention(const PathAttentionSettings& settings, const Parameters& parameters)
      : s_(settings),
        projection_(settings.projection, parameters),
        directions_(parameters, {"w"}, settings.conv, Convolution::Activation::silu),
        beta_(parameters.tensor("beta")),
        beta_bias_(to_float(parameters.tensor("beta_bias"))),
        walk_(settings.projection, settings.scale, fields_),
        o_(parameters.tensor("o")) {
    const ProjectionSettings& p = settings.projection;
    if (settings.w_rank > 0) down_.emplace(parameters.tensor("w_down"));
    sites_ = {head_site(p.num_heads, p.value_head_dim), {Site::position, {Operator::none}, p.num_heads}};
    add_cache_sites(p.num_heads, sites_);
    // A window would drop rows of the path that lead to its sinks.
    std::erase_if(sites_, [](const SiteSpec& spec) { return spec.site == Site::window; });
    add_projection_sites(p, sites_);
    if (directions_.convolves()) {
      conv_field_ = static_cast<Index>(fields_.size());
      fields_.push_back(directions_.field());
      sites_.push_back(conv_site());
    }
    if (settings.forget_gate) {
      forget_ = ScalarDecay(&parameters.tensor("forget"), parameters.tensor("forget_bias"));
      sites_.push_back(forget_.site());
      log_f_ = static_cast<Index>(fields_.size());
      Field& field = fields_.emplace_back();
      field.name = "log_f_sum";
      field.kind = Field::Kind::log;
      field.shape = {p.num_heads};
      field.dtype = DType::f64;
      field.order = Field::Order::columns;
    }
  }

  Signature signature() const override { return {{s_.projection.width}, o_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Compute& compute = context.compute;
    const View<const float> x = ports.input();
    const ProjectionSettings& p = s_.projection;
    Arena::Scope scope(scratch());
    const Projected rows = projection_.take(scope, x.rows);
    projection_.run(x, segments, rows, compute);
    const View<float> w = scope.rows(x.rows, directions_.width()), beta = scope.rows(x.rows, p.num_kv_heads),
                      heads = scope.rows(x.rows, o_.in());
    run_directions(x, segments, w, compute);
    run_strengths(x, segments, beta, compute);
    if (log_f_) append_decays(x, segments, compute);
    walk_.run({rows.q, rows.k, rows.v, w, beta, heads}, segments, log_f_, compute);
    edit_heads(segments, p.num_heads, heads, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index count) {
      o_.run(heads.slice_rows(first, count), ports.output.slice_rows(first, count), compute);
    });
  }

 private:
  void run_directions(View<const float> x, std::span<const Segment> segments, View<float> w,
                      const Compute& compute) const {
    Arena::Scope scope(scratch());
    View<const float> input = x;
    if (down_) {
      const View<float> narrow = scope.rows(x.rows, down_->out());
      for_each_block(segments, [&](Index first, Index count) {
        down_->run(x.slice_rows(first, count), narrow.slice_rows(first, count), compute);
      });
      input = narrow;
    }
    directions_.run(input, w, segments, conv_field_, compute);
    for_each_block(segments, [&](Index first, Index count) {
      const View<float> block = w.slice_rows(first, count);
      l2_norm(block, s_.projection.head_dim, kNormEps, 1, block, compute);
    });
  }

  // beta = 2 sigmoid(b x + beta_bias); position/none: 0, the row's factor is the identity.
  void run_strengths(View<const float> x, std::span<const Segment> segments, View<float> beta,
                     const Compute& compute) const {
    for_each_block(segments, [&](Index first, Index count) {
      const View<float> block = beta.slice_rows(first, count);
      beta_.run(x.slice_rows(first, count), block, compute);
      add_bias(beta_bias_, block, compute);
      map_rows(kernels(compute).sigmoid, block, block, compute);
      scale_rows(block, 2, block, compute);
    });
    for (const Segment& segment : segments)
      for (Index kv = 0; segment.edits && kv < beta.cols; ++kv)
        if (shared_edit(segment, Site::position, Operator::none, kv, s_.projection.group()))
          fill_rows(0, rows_of(segment, beta).slice_cols(kv, 1));
  }

  void append_decays(View<const float> x, std::span<const Segment> segments, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> log_f = scope.rows(x.rows, forget_.heads());
    const View<double> sums(scope.take<double>(x.rows * log_f.cols), x.rows, log_f.cols);
    forget_.run(x, segments, log_f, compute);
    for (const Segment& segment : segments) append_sums(segment, log_f, sums, segment.state->log(*log_f_));
  }

  PathAttentionSettings s_;
  Projection projection_;
  std::optional<Linear> down_;
  ConvolvedInputs directions_;
  Linear beta_;
  std::vector<float> beta_bias_;
  std::vector<Field> fields_;
  PathWalk walk_;
  ScalarDecay forget_;
  std::optional<Index> log_f_;  // field of the sums of log decays
  Index conv_field_ = 0;
  Linear o_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind path_attention_kind() {
  Kind kind;
  kind.key = "path_attention";
  kind.group = "attention";
  kind.summary =
      "softmax attention with data-dependent Householder-like factors between query and key (PaTH)";
  kind.source = "Yang et al., arXiv 2505.16381; layout of flash-linear-attention";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40, "w_rank": 0,
          "forget_gate": true, "qk_norm": {"eps": 1e-5}})",
      R"({"num_heads": 3, "num_kv_heads": 1, "head_dim": 40, "value_head_dim": 24, "w_rank": 5, "conv": 0,
          "scale": 0.3, "qk_norm": {"type": "layer"}})"};
  kind.tensors = [](Config& config) { return path_attention_tensors(read_path_attention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<PathAttention>(read_path_attention(config), parameters);
  };
  kind.twin = make_path_attention_twin;
  return kind;
}

}  // namespace plait
