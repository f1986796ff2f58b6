#include "layers/recurrent/wall_attention.h"

#include <algorithm>
#include <cassert>

#include "layers/attention/projection.h"
#include "layers/attention/scalar_decay.h"
#include "layers/recurrent/block_softmax.h"
#include "layers/recurrent/panels.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/wall_attention.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/rowwise.h"

namespace plait {
namespace {

constexpr Index kKeys = 0, kValues = 1, kSums = 2;  // fields
constexpr Index kBlock = kWalkBlock;
constexpr Index kSubBlock = 16;  // rows of the own block that share a reference row

Field log_field(const char* name, Index width, DType dtype, Field::Order order) {
  Field field;
  field.name = name;
  field.kind = Field::Kind::log;
  field.shape = {width};
  field.dtype = dtype;
  field.order = order;
  return field;
}

// Rows of one part and one query head. A key j and a query i meet at a row t between them,
// (q_i e^{P_i - P_t}).(k_j e^{P_t - P_j}), so that no exponent is positive: of a block before the rows' own
// at its last row; of the own block at the last row before the query's sub-block, or at the query itself.
class Tile {
 public:
  Tile(const ProjectionSettings& heads, float scale, const BlockPart& part, Index head, View<const float> q,
       const Kernels& k, Arena::Scope& scope)
      : heads_(heads),
        scale_(scale),
        part_(part),
        head_(head),
        k_(k),
        softmax_(part, head, 1, heads.value_head_dim, log(kKeys), k, scope),
        q_(q.slice_rows(part.first_row, part.rows).slice_cols(head * heads.head_dim, heads.head_dim)),
        queries_(scope.rows(part.rows, heads.head_dim)),
        keys_(scope.rows(heads.head_dim, kBlock)),
        logits_(scope.rows(part.rows, kBlock)),
        reference_(scope.take<double>(heads.head_dim)),
        own_sums_(scope.take<double>(part.rows * heads.head_dim), part.rows, heads.head_dim) {
    assert(log(kKeys).page_rows() == kBlock && log(kSums).page_rows() == kBlock);
    for (Index r = 0; r < part.rows; ++r) copy_sums(part.position + r, own_sums_.row(r));
  }

  void run(View<float> o) {
    for (Index block = softmax_.newest_block(); block >= softmax_.oldest_block(); block -= kBlock) {
      if (!softmax_.enter(block)) continue;
      block_ = block;
      if (softmax_.own())
        score_own_block();
      else
        score_block();
      for (Index r = 0; r < logits_.rows; ++r)
        for (const KeyRange& run : softmax_.runs(r))
          k_.scale(logits_.row(r) + run.begin, scale_, logits_.row(r) + run.begin, run.end - run.begin);
      const Index kv = head_ / heads_.group();
      softmax_.add(logits_, log(kValues).page(block) + kv * heads_.value_head_dim, log(kValues).stride());
    }
    softmax_.finish(o);
  }

 private:
  const Log& log(Index field) const { return part_.segment->state->log(field); }
  // [head_dim][kBlock]
  const double* sums(Index position) const {
    return log(kSums).page<double>(position) + head_ * heads_.head_dim * kBlock;
  }
  void copy_sums(Index position, double* row) const {
    const double* columns = sums(position) + position % kBlock;
    for (Index c = 0; c < heads_.head_dim; ++c) row[c] = columns[c * kBlock];
  }

  // The sums of the last row in front of `end` that was not skipped; false if the block has none there.
  bool find_reference(Index end) {
    Index last = -1;
    for (const Log::Range& range : log(kSums).present())
      if (range.begin < end) last = std::min(range.end, end) - 1;
    if (last < block_) return false;
    copy_sums(last, reference_);
    return true;
  }

  // keys_ [head_dim][begin, end) := k_j e^{to - P_j}
  void move_keys(const double* to, Index begin, Index end) {
    const float* keys = log(kKeys).page(block_) + head_ / heads_.group() * heads_.head_dim * kBlock;
    const double* block_sums = sums(block_);
    for (Index c = 0; c < heads_.head_dim; ++c) {
      float* moved = keys_.row(c) + begin;
      k_.exp_difference_from(to[c], block_sums + c * kBlock + begin, moved, end - begin);
      k_.multiply(moved, keys + c * kBlock + begin, moved, end - begin);
    }
  }

  // queries_ of the rows [first, end) := q_i e^{P_i - reference}
  void move_queries(Index first, Index end) {
    for (Index r = first; r < end; ++r) {
      exp_differences(k_, own_sums_.row(r), reference_, 1, queries_.row(r), queries_.cols);
      k_.multiply(queries_.row(r), q_.row(r), queries_.row(r), queries_.cols);
    }
  }

  void score_block() {
    find_reference(block_ + kBlock);  // a key is seen, so there is one
    move_keys(reference_, 0, kBlock);
    move_queries(0, queries_.rows);
    score(k_, queries_, keys_.data, keys_.stride, kBlock, logits_);
  }

  void score_own_block() {
    for (Index first = 0, end = 0; first < part_.rows; first = end) {
      const Index begin = (part_.place() + first) / kSubBlock * kSubBlock;
      end = std::min(begin + kSubBlock - part_.place(), part_.rows);
      if (begin > 0 && find_reference(block_ + begin)) {
        move_keys(reference_, 0, begin);
        move_queries(first, end);
        score(k_, queries_.slice_rows(first, end - first), keys_.data, keys_.stride, begin,
              logits_.slice_rows(first, end - first));
      }
      for (Index r = first; r < end; ++r) {
        const Index count = part_.place() + r + 1 - begin;
        move_keys(own_sums_.row(r), begin, begin + count);
        k_.combine(heads_.head_dim, count, q_.row(r), keys_.data + begin, keys_.stride,
                   logits_.row(r) + begin, Start::zero);
      }
    }
  }

  const ProjectionSettings& heads_;
  float scale_;
  const BlockPart& part_;
  Index head_;
  const Kernels& k_;
  BlockSoftmax softmax_;
  View<const float> q_;    // [rows, head_dim]
  View<float> queries_;    // [rows, head_dim] at the reference
  View<float> keys_;       // [head_dim, kBlock] at the reference
  View<float> logits_;     // [rows, kBlock]
  double* reference_;      // [head_dim] sums of the row where queries and keys meet
  View<double> own_sums_;  // [rows, head_dim]
  Index block_ = 0;
};

class WallAttention final : public Layer {
 public:
  WallAttention(const WallAttentionSettings& settings, const Parameters& parameters)
      : s_(settings),
        projection_(settings.projection, parameters),
        decay_(parameters.tensor("decay")),
        decay_bias_(to_float(parameters.tensor("decay_bias"))),
        o_(parameters.tensor("o")) {
    const ProjectionSettings& p = settings.projection;
    fields_ = {log_field("k", p.num_kv_heads * p.head_dim, DType::f32, Field::Order::columns),
               log_field("v", p.num_kv_heads * p.value_head_dim, DType::f32, Field::Order::rows),
               log_field("log_decay_sum", decay_.out(), DType::f64, Field::Order::columns)};
    sites_ = {head_site(p.num_heads, p.value_head_dim), decay_site(p.num_heads, p.head_dim)};
    add_cache_sites(p.num_heads, sites_);
    add_projection_sites(p, sites_);
  }

  Signature signature() const override { return {{s_.projection.width}, o_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Compute& compute = context.compute;
    const View<const float> x = ports.input();
    const Index num_heads = s_.projection.num_heads;
    Arena::Scope scope(scratch());
    const Projected rows = projection_.take(scope, x.rows);
    projection_.run(x, segments, rows, compute);
    for (const Segment& segment : segments) {
      segment.state->log(kKeys).append(segment.position, View<const float>(rows_of(segment, rows.k)));
      segment.state->log(kValues).append(segment.position, View<const float>(rows_of(segment, rows.v)));
    }
    append_decays(x, segments, compute);
    const View<float> heads = scope.rows(x.rows, o_.in());
    const std::vector<BlockPart> parts = block_parts(segments);
    parallel_for(compute.threads, static_cast<Index>(parts.size()) * num_heads, [&](Index i) {
      Arena::Scope own(scratch());
      Tile(s_.projection, static_cast<float>(s_.scale), parts[static_cast<std::size_t>(i / num_heads)],
           i % num_heads, rows.q, kernels(compute), own)
          .run(heads);
    });
    edit_heads(segments, num_heads, heads, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index count) {
      o_.run(heads.slice_rows(first, count), ports.output.slice_rows(first, count), compute);
    });
  }

 private:
  // g = logsigmoid(decay x + decay_bias), added to the sums.
  void append_decays(View<const float> x, std::span<const Segment> segments, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> g = scope.rows(x.rows, decay_.out());
    const View<double> sums(scope.take<double>(x.rows * g.cols), x.rows, g.cols);
    for_each_block(segments, [&](Index first, Index count) {
      const View<float> block = g.slice_rows(first, count);
      decay_.run(x.slice_rows(first, count), block, compute);
      add_bias(decay_bias_, block, compute);
      map_rows(kernels(compute).log_sigmoid, block, block, compute);
      for (Index r = 0; r < count; ++r)
        kernels(compute).clamp(block.row(r), kLowestLogDecay, 0, block.row(r), block.cols);
    });
    edit_strengths(segments, {s_.projection.num_heads, g, {}, {}, {}});
    for (const Segment& segment : segments) append_sums(segment, g, sums, segment.state->log(kSums));
  }

  WallAttentionSettings s_;
  Projection projection_;
  Linear decay_;
  std::vector<float> decay_bias_;
  Linear o_;
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind wall_attention_kind() {
  Kind kind;
  kind.key = "wall_attention";
  kind.group = "attention";
  kind.summary = "softmax attention whose logits decay with a gate per query head and channel";
  kind.source = "flash-linear-attention 0.6, fla/ops/wall_attn (Tilde Research)";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 24, "value_head_dim": 40,
          "qk_norm": {"eps": 1e-5, "gains": "per_head"}})",
      R"({"num_heads": 3, "num_kv_heads": 1, "head_dim": 40, "value_head_dim": 24, "scale": 0.3})"};
  kind.tensors = [](Config& config) { return wall_attention_tensors(read_wall_attention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<WallAttention>(read_wall_attention(config), parameters);
  };
  kind.twin = make_wall_attention_twin;
  return kind;
}

}  // namespace plait
