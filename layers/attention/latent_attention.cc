#include "layers/attention/latent_attention.h"

#include <optional>

#include "layers/attention/projection.h"
#include "layers/attention/rope.h"
#include "layers/attention/sigmoid_gate.h"
#include "layers/attention/stages.h"
#include "layers/attention/tiles.h"
#include "layers/reference/latent_attention.h"
#include "runtime/base/arena.h"
#include "runtime/base/panel.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

constexpr Index kLatent = 0;  // field

// The walk sees one key head, the cached row, and its first kv_lora_rank columns as the value.
SoftmaxAttentionSettings walk_settings(const LatentAttentionSettings& settings) {
  SoftmaxAttentionSettings walk;
  walk.projection.num_heads = settings.num_heads;
  walk.projection.num_kv_heads = 1;
  walk.projection.head_dim = settings.cached_width();
  walk.projection.value_head_dim = settings.kv_lora_rank;
  walk.projection.rope = settings.rope;  // for the sites
  walk.score = {ScaledDot{settings.scale}};
  return walk;
}

// What a head's keys and values are made of: rows of kv_b.
class HeadMatrices {
 public:
  HeadMatrices(const LatentAttentionSettings& s, const Tensor& kv_b) {
    const std::vector<float> all = to_float(kv_b);
    const DType dtype = kv_b.dtype == DType::bf16 ? DType::bf16 : DType::f32;
    for (Index h = 0; h < s.num_heads; ++h) {
      const float* head = all.data() + h * (s.qk_nope_head_dim + s.value_head_dim) * s.kv_lora_rank;
      const View<const float> keys(head, s.qk_nope_head_dim, s.kv_lora_rank);
      std::vector<float> turned;
      for (Index c = 0; c < keys.cols; ++c)
        for (Index r = 0; r < keys.rows; ++r) turned.push_back(keys(r, c));
      into_latent.emplace_back(pack(make_tensor({keys.cols, keys.rows}, turned), dtype));
      const float* values = head + keys.rows * keys.cols;
      out_of_latent.emplace_back(
          pack(make_tensor({s.value_head_dim, s.kv_lora_rank},
                           {values, static_cast<std::size_t>(s.value_head_dim * s.kv_lora_rank)}),
               dtype));
    }
  }

  std::vector<Linear> into_latent;    // [kv_lora_rank, qk_nope_head_dim]: a query against the latent
  std::vector<Linear> out_of_latent;  // [value_head_dim, kv_lora_rank]
};

class LatentAttention final : public Layer {
 public:
  LatentAttention(const LatentAttentionSettings& settings, const Grids& grids, const Parameters& parameters)
      : s_(settings),
        walk_(walk_settings(settings)),
        grids_(grids),
        q_(parameters.tensor(settings.q_lora_rank == 0 ? "q" : "q_b")),
        kv_a_(parameters.tensor("kv_a")),
        kv_norm_(to_float(parameters.tensor("kv_a_norm"))),
        matrices_(settings, parameters.tensor("kv_b")),
        o_(parameters.tensor("o")) {
    if (settings.q_lora_rank > 0) {
      q_a_.emplace(parameters.tensor("q_a"));
      q_norm_ = to_float(parameters.tensor("q_a_norm"));
    }
    if (settings.rope) rope_ = make_rope(*settings.rope);
    sites_ = {head_site(settings.num_heads, settings.value_head_dim)};
    StageParts parts{walk_, parameters, fields_, sites_};
    parts.add(parts.log("latent", settings.cached_width(), settings.cache, Field::Order::rows));
    rule_.emplace(parts);
    add_cache_sites(settings.num_heads, sites_);
    add_projection_sites(walk_.projection, sites_);
    if (settings.gate_width > 0) {
      gate_ = SigmoidGate(settings.num_heads, settings.gate_width, &parameters.tensor("gate"));
      sites_.push_back(gate_site(settings.num_heads, settings.gate_width));
    }
  }

  Signature signature() const override { return {{s_.width}, o_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Compute& compute = context.compute;
    const View<const float> x = ports.input();
    Arena::Scope scope(scratch());
    const View<float> queries = scope.rows(x.rows, s_.num_heads * s_.cached_width());
    const View<float> cached = scope.rows(x.rows, s_.cached_width());
    const View<float> latents = scope.rows(x.rows, s_.num_heads * s_.kv_lora_rank);
    const View<float> heads = scope.rows(x.rows, o_.in());
    make_queries(x, segments, queries, compute);
    make_cached(x, segments, cached, compute);
    for (const Segment& segment : segments)
      segment.state->log(kLatent).append(segment.position,
                                         cached.slice_rows(segment.first_row, segment.rows));
    walk(segments, queries, latents, compute);
    for_each_head(segments, [&](Index first, Index rows, Index h) {
      const Index rank = s_.kv_lora_rank, width = s_.value_head_dim;
      matrices_.out_of_latent[static_cast<std::size_t>(h)].run(
          latents.slice_rows(first, rows).slice_cols(h * rank, rank),
          heads.slice_rows(first, rows).slice_cols(h * width, width), compute);
    });
    gate_.apply(x, {}, segments, heads, compute);
    edit_heads(segments, s_.num_heads, heads, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index rows) {
      o_.run(heads.slice_rows(first, rows), ports.output.slice_rows(first, rows), compute);
    });
  }

 private:
  template <class Body>
  void for_each_head(std::span<const Segment> segments, const Body& body) const {
    for_each_block(segments, [&](Index first, Index rows) {
      for (Index h = 0; h < s_.num_heads; ++h) body(first, rows, h);
    });
  }

  // Queries of the walk: per head [its part without rope, taken to the latent | its rotated part].
  // y [rows, num_heads * cached_width]
  void make_queries(View<const float> x, std::span<const Segment> segments, View<float> y,
                    const Compute& compute) const {
    const Index nope = s_.qk_nope_head_dim, turned = s_.qk_rope_head_dim, rank = s_.kv_lora_rank;
    Arena::Scope scope(scratch());
    const View<float> q = scope.rows(x.rows, q_.out()), low = scope.rows(x.rows, s_.q_lora_rank);
    for_each_block(segments, [&](Index first, Index rows) {
      View<const float> from = x.slice_rows(first, rows);
      if (q_a_) {
        const View<float> latent = low.slice_rows(first, rows);
        q_a_->run(from, latent, compute);
        rms_norm(latent, latent.cols, static_cast<float>(s_.norm_eps), q_norm_, latent, compute);
        from = latent;
      }
      q_.run(from, q.slice_rows(first, rows), compute);
    });
    for_each_head(segments, [&](Index first, Index rows, Index h) {
      const View<float> head = q.slice_rows(first, rows).slice_cols(h * s_.query_dim(), s_.query_dim());
      const View<float> to = y.slice_rows(first, rows).slice_cols(h * s_.cached_width(), s_.cached_width());
      matrices_.into_latent[static_cast<std::size_t>(h)].run(head.slice_cols(0, nope), to.slice_cols(0, rank),
                                                             compute);
      copy_rows(head.slice_cols(nope, turned), to.slice_cols(rank, turned));
    });
    for (const Segment& segment : segments)
      for (Index h = 0; h < s_.num_heads; ++h)
        rotate(segment, y.slice_cols(h * s_.cached_width() + rank, turned),
               segment.edit(Site::position, Operator::none, h),
               segment.edit(Site::position, Operator::shift, h), compute);
  }

  // Rows of the cache. y [rows, cached_width]
  void make_cached(View<const float> x, std::span<const Segment> segments, View<float> y,
                   const Compute& compute) const {
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = y.slice_rows(first, rows);
      kv_a_.run(x.slice_rows(first, rows), block, compute);
      const View<float> latent = block.slice_cols(0, s_.kv_lora_rank);
      rms_norm(latent, latent.cols, static_cast<float>(s_.norm_eps), kv_norm_, latent, compute);
    });
    for (const Segment& segment : segments)
      rotate(segment, y.slice_cols(s_.kv_lora_rank, s_.qk_rope_head_dim),
             shared_edit(segment, Site::position, Operator::none, 0, s_.num_heads),
             shared_edit(segment, Site::position, Operator::shift, 0, s_.num_heads), compute);
  }

  // rows [all, qk_rope_head_dim]
  void rotate(const Segment& segment, View<float> rows, const Edit* none, const Edit* shift,
              const Compute& compute) const {
    if (!rope_ || none) return;
    rope_->apply(rows.slice_rows(segment.first_row, segment.rows), 1,
                 static_cast<double>(segment.position) + (shift ? shift->value : 0.0), compute);
  }

  // out [rows, num_heads * kv_lora_rank]
  void walk(std::span<const Segment> segments, View<const float> queries, View<float> out,
            const Compute& compute) const {
    Tiles tiles(walk_.projection, s_.kv_lora_rank);
    for (const Segment& segment : segments) {
      const Log& log = segment.state->log(kLatent);
      tiles.add(segment, {log, log, nullptr, {}, {}, {}, {}, {}}, queries, out);
    }
    walk_keys(tiles.all(), *rule_, s_.cached_width(), s_.kv_lora_rank, grids_, compute);
  }

  LatentAttentionSettings s_;
  SoftmaxAttentionSettings walk_;
  Grids grids_;
  std::optional<Linear> q_a_;
  std::vector<float> q_norm_;
  Linear q_;  // of x, or of the normed latent of the queries
  Linear kv_a_;
  std::vector<float> kv_norm_;
  HeadMatrices matrices_;
  std::optional<Rotary> rope_;
  std::optional<StagedRule> rule_;
  SigmoidGate gate_;
  Linear o_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind latent_attention_kind() {
  Kind kind;
  kind.key = "latent_attention";
  kind.group = "attention";
  kind.summary = "softmax attention whose cache is one latent and one shared key per token (MLA)";
  kind.source = "DeepSeek-V2, arXiv 2405.04434, section 2.1; Kimi Linear, arXiv 2510.26692 (without rope)";
  kind.examples = {
      R"({"num_heads": 4, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "kv_lora_rank": 32})",
      R"({"num_heads": 3, "qk_nope_head_dim": 12, "qk_rope_head_dim": 10, "value_head_dim": 20, "kv_lora_rank": 36,
          "q_lora_rank": 24, "rope": {"theta": 10000, "layout": "interleaved"}, "scale": 0.3})",
      R"({"num_heads": 4, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "value_head_dim": 24, "kv_lora_rank": 40,
          "rope": {"theta": 10000, "dim": 4}, "gate": "sigmoid", "gate_granularity": "headwise", "cache": "f16"})",
      R"({"num_heads": 2, "qk_nope_head_dim": 20, "qk_rope_head_dim": 6, "kv_lora_rank": 28, "cache": "bf16",
          "gate": "sigmoid"})"};
  kind.tensors = [](Config& config) { return latent_attention_tensors(read_latent_attention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<LatentAttention>(read_latent_attention(config), config.surroundings().grids,
                                             parameters);
  };
  kind.twin = make_latent_attention_twin;
  return kind;
}

}  // namespace plait
