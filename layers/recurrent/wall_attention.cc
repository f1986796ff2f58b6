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

constexpr Index kKeys = 0, kValues = 1, kSums = 2, kForget = 3;  // fields, the last with a forget gate
constexpr Index kBlock = kWalkBlock;
constexpr Index kSpan = 4 * kBlock;  // positions that share a reference row with later spans
constexpr Index kSubBlock = 8;       // rows of the own block that share a reference row

// A window of less than a block keeps a block: the walk reads whole ones, and a sum continues from the row
// before.
Field log_field(const char* name, Index width, DType dtype, Field::Order order, Index window) {
  Field field;
  field.name = name;
  field.kind = Field::Kind::log;
  field.shape = {width};
  field.dtype = dtype;
  field.order = order;
  field.window = window == 0 ? 0 : std::max(window, kBlock);
  return field;
}

// Rows of one segment in one span, in parts, and one query head. A key j and a query i meet at a row t
// between them, (q_i e^{P_i - P_t}).(k_j e^{P_t - P_j}), so that no exponent is positive: of a span before
// the rows' own at its last row; of an earlier block of the own span at the block's last row; of the own
// block at the last row before the query's sub-block, or at the query itself.
class Tile {
 public:
  // sinks [num_heads], or nothing
  Tile(const WallAttentionSettings& settings, std::span<const float> sinks, std::span<const BlockPart> parts,
       Index head, View<const float> q, const Kernels& k, Arena::Scope& scope)
      : heads_(settings.projection),
        state_(*parts.front().segment->state),
        span_(parts.front().position / kSpan * kSpan),
        head_(head),
        forgets_(settings.forget_gate),
        k_(k),
        keys_(scope.rows(heads_.head_dim, kBlock)),
        logits_(scope.rows(kBlock, kBlock)),
        near_keys_(scope.rows(kSubBlock, heads_.head_dim)),
        near_sums_(scope.take<double>(kSubBlock * heads_.head_dim), kSubBlock, heads_.head_dim),
        factors_(scope.take(heads_.head_dim)),
        reference_(scope.take<double>(heads_.head_dim)) {
    const Index width = heads_.head_dim;
    const auto scale = static_cast<float>(settings.scale);
    assert(log(kKeys).page_rows() == kBlock && log(kValues).page_rows() == kBlock);
    assert(log(kSums).page_rows() == kBlock);
    parts_.reserve(parts.size());
    for (const BlockPart& part : parts) {
      Part& p = parts_.emplace_back(part,
                                    BlockSoftmax(part, head, 1, heads_.value_head_dim, log(kKeys), k, scope,
                                                 {.window = settings.window}),
                                    scope.rows(part.rows, width), scope.rows(part.rows, width),
                                    View<double>(scope.take<double>(part.rows * width), part.rows, width));
      if (!sinks.empty()) p.softmax.start(sinks[static_cast<std::size_t>(head)]);
      for (Index r = 0; r < part.rows; ++r) {
        k.scale(q.row(part.first_row + r) + head * width, scale, p.queries.row(r), width);
        copy_sums(part.position + r, p.sums.row(r));
      }
    }
  }

  void run(View<float> o) {
    Index oldest = parts_.front().softmax.oldest_block();
    for (const Part& part : parts_) oldest = std::min(oldest, part.softmax.oldest_block());
    for (block_ = parts_.back().softmax.newest_block(); block_ >= oldest; block_ -= kBlock) step();
    for (const Part& part : parts_) part.softmax.finish(o);
  }

 private:
  struct Part {
    const BlockPart& rows;
    BlockSoftmax softmax;
    View<float> queries;  // [rows, head_dim] times the scale
    View<float> moved;    // [rows, head_dim], the queries at row `at`
    View<double> sums;    // [rows, head_dim]
    Index at = -1;

    Part(const BlockPart& part, BlockSoftmax&& own, View<float> q, View<float> room, View<double> p)
        : rows(part), softmax(std::move(own)), queries(q), moved(room), sums(p) {}
  };

  const Log& log(Index field) const { return state_.log(field); }
  // [head_dim][kBlock]
  const double* sums(Index position) const {
    return log(kSums).page<double>(position) + head_ * heads_.head_dim * kBlock;
  }
  const float* keys() const {
    return log(kKeys).page(block_) + head_ / heads_.group() * heads_.head_dim * kBlock;
  }
  void copy_sums(Index position, double* row) const {
    const double* columns = sums(position) + position % kBlock;
    for (Index c = 0; c < heads_.head_dim; ++c) row[c] = columns[c * kBlock];
  }

  // The last row in front of `end` that was not skipped, its sums in reference_; -1 if that is not in this
  // block or behind it.
  Index find_reference(Index end) {
    Index last = -1;
    for (const Log::Range& range : log(kSums).present())
      if (range.begin < end) last = std::min(range.end, end) - 1;
    if (last < block_) return -1;
    copy_sums(last, reference_);
    return last;
  }

  // keys_ [head_dim][0, count) := k_j e^{reference - P_j}
  void move_keys(Index count) {
    const double* block_sums = sums(block_);
    for (Index c = 0; c < heads_.head_dim; ++c) {
      k_.exp_difference_from(reference_[c], block_sums + c * kBlock, keys_.row(c), count);
      k_.multiply(keys_.row(c), keys() + c * kBlock, keys_.row(c), count);
    }
  }

  // part.moved of the rows [first, end) := q_i e^{P_i - reference}
  void move_queries(Part& part, Index first, Index end) {
    for (Index r = first; r < end; ++r) {
      exp_differences(k_, part.sums.row(r), reference_, 1, part.moved.row(r), part.moved.cols);
      k_.multiply(part.moved.row(r), part.queries.row(r), part.moved.row(r), part.moved.cols);
    }
  }

  // The block's own part comes first, then those behind it, which share its moved keys.
  void step() {
    Index at = -1;  // where the keys are
    for (Part& part : parts_) {
      if (part.softmax.newest_block() < block_ || !part.softmax.enter(block_)) continue;
      if (part.softmax.own()) {
        score_own_block(part);
      } else {
        if (at < 0) {  // a key is seen, so there is a reference
          at = find_reference(block_ < span_ ? block_ / kSpan * kSpan + kSpan : block_ + kBlock);
          move_keys(kBlock);
        }
        if (part.at != at) move_queries(part, 0, part.rows.rows);
        part.at = at;
        score(k_, part.moved, keys_.data, keys_.stride, kBlock, logits_.slice_rows(0, part.rows.rows));
      }
      if (forgets_) forget(part);
      const Index kv = head_ / heads_.group();
      part.softmax.add(logits_.slice_rows(0, part.rows.rows),
                       log(kValues).page(block_) + kv * heads_.value_head_dim, log(kValues).stride());
    }
  }

  // Logits + c_i - c_j, c the sums of the forget gate's logs.
  void forget(const Part& part) const {
    const Index column = head_ * kBlock;
    const double* all = log(kForget).page<double>(block_) + column;
    for (Index r = 0; r < part.rows.rows; ++r) {
      const Index position = part.softmax.position(r);
      const double own = log(kForget).page<double>(position)[column + position % kBlock];
      for (const KeyRange& run : part.softmax.runs(r))
        k_.add_f64(own, -1, all + run.begin, logits_.row(r) + run.begin, run.end - run.begin);
    }
  }

  void score_own_block(Part& part) {
    const Index place = part.rows.place();
    for (Index first = 0, end = 0; first < part.rows.rows; first = end) {
      const Index begin = (place + first) / kSubBlock * kSubBlock;
      end = std::min(begin + kSubBlock - place, part.rows.rows);
      if (begin > 0 && find_reference(block_ + begin) >= 0) {
        move_keys(begin);
        move_queries(part, first, end);
        score(k_, part.moved.slice_rows(first, end - first), keys_.data, keys_.stride, begin,
              logits_.slice_rows(first, end - first));
      }
      score_sub_block(part, begin, first, end);
    }
  }

  // The rows [first, end) over the keys of their sub-block, which begins at `begin` of the block.
  void score_sub_block(const Part& part, Index begin, Index first, Index end) {
    const Index place = part.rows.place(), width = heads_.head_dim;
    read_columns(keys() + begin, kBlock, near_keys_.slice_rows(0, place + end - begin));
    for (Index j = begin; j < place + end; ++j) copy_sums(block_ + j, near_sums_.row(j - begin));
    for (Index r = first; r < end; ++r)
      for (Index j = begin; j <= place + r; ++j) {
        exp_differences(k_, part.sums.row(r), near_sums_.row(j - begin), 1, factors_, width);
        k_.multiply(factors_, part.queries.row(r), factors_, width);
        logits_(r, j) = k_.dot(factors_, near_keys_.row(j - begin), width);
      }
  }

  const ProjectionSettings& heads_;
  const State& state_;
  Index span_;  // where it begins
  Index head_;
  bool forgets_;
  const Kernels& k_;
  std::vector<Part> parts_;
  View<float> keys_;        // [head_dim, kBlock] at the reference
  View<float> logits_;      // [rows of a part, kBlock]
  View<float> near_keys_;   // [kSubBlock, head_dim]
  View<double> near_sums_;  // [kSubBlock, head_dim]
  float* factors_;          // [head_dim]
  double* reference_;       // [head_dim] sums of the row where queries and keys meet
  Index block_ = 0;
};

// The parts of each segment in each span.
std::vector<std::span<const BlockPart>> parts_by_span(std::span<const BlockPart> parts) {
  std::vector<std::span<const BlockPart>> spans;
  for (std::size_t first = 0, last = 0; first < parts.size(); first = last) {
    while (last < parts.size() && parts[last].segment == parts[first].segment &&
           parts[last].position / kSpan == parts[first].position / kSpan)
      ++last;
    spans.push_back(parts.subspan(first, last - first));
  }
  return spans;
}

class WallAttention final : public Layer {
 public:
  WallAttention(const WallAttentionSettings& settings, const Parameters& parameters)
      : s_(settings),
        projection_(settings.projection, parameters),
        decay_(parameters.tensor("decay")),
        decay_bias_(to_float(parameters.tensor("decay_bias"))),
        o_(parameters.tensor("o")) {
    const ProjectionSettings& p = settings.projection;
    if (settings.sink) sinks_ = to_float(parameters.tensor("sinks"));
    const Index window = settings.window;
    fields_ = {log_field("k", p.num_kv_heads * p.head_dim, DType::f32, Field::Order::columns, window),
               log_field("v", p.num_kv_heads * p.value_head_dim, DType::f32, Field::Order::rows, window),
               log_field("log_decay_sum", decay_.out(), DType::f64, Field::Order::columns, window)};
    if (settings.forget_gate) {
      forget_ = ScalarDecay(&parameters.tensor("forget"), parameters.tensor("forget_bias"));
      fields_.push_back(log_field("log_f_sum", p.num_heads, DType::f64, Field::Order::columns, window));
    }
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
    if (s_.forget_gate) append_forgets(x, segments, compute);
    const View<float> heads = scope.rows(x.rows, o_.in());
    const std::vector<BlockPart> parts = block_parts(segments);
    const std::vector<std::span<const BlockPart>> spans = parts_by_span(parts);
    parallel_for(compute.threads, static_cast<Index>(spans.size()) * num_heads, [&](Index i) {
      Arena::Scope own(scratch());
      Tile(s_, sinks_, spans[static_cast<std::size_t>(i / num_heads)], i % num_heads, rows.q,
           kernels(compute), own)
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

  // Site decay is that of the channels' gates: these see no edits.
  void append_forgets(View<const float> x, std::span<const Segment> segments, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> log_f = scope.rows(x.rows, forget_.heads());
    const View<double> sums(scope.take<double>(x.rows * log_f.cols), x.rows, log_f.cols);
    std::vector<Segment> unedited(segments.begin(), segments.end());
    for (Segment& segment : unedited) segment.edits = nullptr, segment.watch = nullptr;
    forget_.run(x, unedited, log_f, compute);
    for (const Segment& segment : segments) append_sums(segment, log_f, sums, segment.state->log(kForget));
  }

  WallAttentionSettings s_;
  Projection projection_;
  Linear decay_;
  std::vector<float> decay_bias_, sinks_;
  ScalarDecay forget_;
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
      R"({"num_heads": 3, "num_kv_heads": 1, "head_dim": 40, "value_head_dim": 24, "scale": 0.3})",
      R"({"num_heads": 2, "num_kv_heads": 1, "head_dim": 12, "window": 75, "normaliser": "sink_softmax"})",
      R"({"num_heads": 1, "head_dim": 12, "window": 3})",
      R"({"num_heads": 2, "num_kv_heads": 1, "head_dim": 12, "forget_gate": true})"};
  kind.tensors = [](Config& config) { return wall_attention_tensors(read_wall_attention(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<WallAttention>(read_wall_attention(config), parameters);
  };
  kind.twin = make_wall_attention_twin;
  return kind;
}

}  // namespace plait
