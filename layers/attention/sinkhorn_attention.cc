#include "layers/attention/sinkhorn_attention.h"

#include "layers/attention/projection.h"
#include "layers/attention/whole_sequence.h"
#include "layers/reference/sinkhorn_attention.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

// A logit plus the potential of the key. Sums of a potential and a logit are taken in f64: both may be large
// and cancel.
class PotentialRule : public KeyRule {
 public:
  explicit PotentialRule(double scale) : scale_(static_cast<float>(scale)) {}
  bool tracks_maximum() const final { return true; }
  bool start(const QueryRow&, float&, float&) const final { return false; }
  void logits(const QueryRow&, Index, Index count, const double* side, float* s,
              const Kernels& k) const final {
    k.scale(s, scale_, s, count);
    k.add_f64(0, 1, side, s, count);
  }
  void numerators(const QueryRow&, float maximum, const float* s, float* p, Index count,
                  const Kernels& k) const final {
    k.exp_minus(s, maximum, p, count);
  }

 private:
  float scale_;
};

// A half step: the potential of a row becomes -ln of its mass.
class HalfStep final : public PotentialRule {
 public:
  // potentials [heads, rows]
  HalfStep(double scale, View<double> potentials) : PotentialRule(scale), potentials_(potentials) {}
  void finish(const QueryRow& row, const RowSums& sums, Index, const Kernels& k) const override {
    float log = 0;
    k.log(&sums.mass, &log, 1);
    potentials_(row.head, row.position) = -(static_cast<double>(sums.maximum) + static_cast<double>(log));
  }

 private:
  View<double> potentials_;
};

// The last half step, by rows, and the sum of the values in one: a row's potential divides by its mass.
class BalancedRows final : public PotentialRule {
 public:
  using PotentialRule::PotentialRule;
  void finish(const QueryRow& row, const RowSums& sums, Index width, const Kernels& k) const override {
    k.scale(sums.sums, 1 / sums.mass, row.out, width);
  }
};

// The sum of the values under e^(logit + both potentials); the row's own is its side.
class Transport final : public PotentialRule {
 public:
  using PotentialRule::PotentialRule;
  void finish(const QueryRow& row, const RowSums& sums, Index width, const Kernels& k) const override {
    const auto exponent = static_cast<float>(static_cast<double>(sums.maximum) + row.side);
    float factor = 0;
    k.exp(&exponent, &factor, 1);
    k.scale(sums.sums, factor, row.out, width);
  }
};

class SinkhornAttention final : public Layer {
 public:
  SinkhornAttention(const SinkhornAttentionSettings& settings, const Grids& grids,
                    const Parameters& parameters)
      : settings_(settings),
        grids_(grids),
        projection_(settings.projection, parameters),
        o_(parameters.tensor("o")) {
    if (settings.output_bias) o_bias_ = to_float(parameters.tensor("o_bias"));
    sites_ = {head_site(settings.projection.num_heads, settings.projection.value_head_dim)};
    add_projection_sites(settings.projection, sites_);
  }

  Signature signature() const override { return {{settings_.projection.width}, o_.out()}; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    Arena::Scope scope(scratch());
    const Projected rows = projection_.take(scope, x.rows);
    const View<float> heads = scope.rows(x.rows, o_.in());
    projection_.run(x, segments, rows, context.compute);
    for (const Segment& segment : segments) {
      const auto own = [&](View<float> all) { return all.slice_rows(segment.first_row, segment.rows); };
      attend(own(rows.q), own(rows.k), own(rows.v), own(heads), context.compute);
    }
    edit_heads(segments, settings_.projection.num_heads, heads, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index count) {
      const View<float> y = ports.output.slice_rows(first, count);
      o_.run(heads.slice_rows(first, count), y, context.compute);
      if (!o_bias_.empty()) add_bias(o_bias_, y, context.compute);
    });
  }

 private:
  // One sequence. The matrix of logits is computed anew in every half step, by rows or by columns, and never
  // kept.
  void attend(View<const float> q, View<const float> k, View<const float> v, View<float> out,
              const Compute& compute) const {
    const ProjectionSettings& p = settings_.projection;
    Arena::Scope scope(scratch());
    const Index n = q.rows;
    const View<double> u(scope.take<double>(p.num_heads * n), p.num_heads, n),
        w(scope.take<double>(p.num_heads * n), p.num_heads, n);
    std::fill_n(w.data, p.num_heads * n, 0.0);
    const HeadRows queries{q, p.head_dim, 1}, keys{k, p.head_dim, p.group()},
        values{v, p.value_head_dim, p.group()};
    const KeyArray by_key(keys, values, w, scope), by_query(queries, {}, u, scope);
    const bool ends_by_rows = settings_.max_iter % 2 == 1;
    for (Index step = 0; step < settings_.max_iter - (ends_by_rows ? 1 : 0); ++step) {
      const bool rows = step % 2 == 0;
      WholeTiles tiles(p.num_heads);
      tiles.add(rows ? by_key : by_query, rows ? queries : keys, {}, {});
      walk_keys(tiles.all(), HalfStep(settings_.scale, rows ? u : w), p.head_dim, 0, grids_, compute);
    }
    WholeTiles tiles(p.num_heads);
    tiles.add(by_key, queries, ends_by_rows ? View<const double>() : u, out);
    const auto gather = [&](const KeyRule& rule) {
      walk_keys(tiles.all(), rule, p.head_dim, p.value_head_dim, grids_, compute);
    };
    ends_by_rows ? gather(BalancedRows(settings_.scale)) : gather(Transport(settings_.scale));
  }

  SinkhornAttentionSettings settings_;
  Grids grids_;
  Projection projection_;
  Linear o_;
  std::vector<float> o_bias_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind sinkhorn_attention_kind() {
  Kind kind;
  kind.key = "sinkhorn_attention";
  kind.group = "attention";
  kind.summary = "attention whose weights are balanced over rows and columns; encoders only";
  kind.source = "Sander et al., Sinkformers, arXiv 2110.11773";
  kind.graphs = Kind::Graphs::encoder;
  kind.examples = {
      R"({"num_heads": 4, "head_dim": 16})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40, "max_iter": 4,
          "bias": true, "output_bias": true, "qk_norm": {}, "rope": {"theta": 10000}})",
      R"({"num_heads": 2, "head_dim": 16, "max_iter": 1, "scale": 0.1, "qk_norm": {"type": "layer"}})",
      R"({"num_heads": 2, "head_dim": 16, "max_iter": 21})",
  };
  kind.tensors = [](Config& config) { return sinkhorn_attention_tensors(read_sinkhorn_attention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<SinkhornAttention>(read_sinkhorn_attention(config), config.surroundings().grids,
                                               parameters);
  };
  kind.twin = make_sinkhorn_attention_twin;
  return kind;
}

}  // namespace plait
