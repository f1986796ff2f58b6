#include "layers/recurrent/nats_l.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "layers/attention/projection.h"
#include "layers/attention/tiles.h"
#include "layers/attention/visibility.h"
#include "layers/recurrent/delta_gates.h"
#include "layers/recurrent/inputs.h"
#include "layers/recurrent/routed_delta.h"
#include "layers/recurrent/rows.h"
#include "layers/recurrent/strengths.h"
#include "layers/reference/nats_l.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"

namespace plait {
namespace {

constexpr float kNormEps = 1e-6f;  // of the l2 norm of the delta rule's queries and keys

class SoftmaxRule final : public KeyRule {
 public:
  explicit SoftmaxRule(float scale) : scale_(scale) {}
  bool tracks_maximum() const override { return true; }
  bool start(const QueryRow&, float&, float&) const override { return false; }
  void logits(const QueryRow&, Index, Index count, const double*, float* s, const Kernels& k) const override {
    k.scale(s, scale_, s, count);
  }
  void numerators(const QueryRow&, float maximum, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    k.exp_minus(s, maximum, p, count);
  }
  void finish(const QueryRow& row, const RowSums& sums, Index width, const Kernels& k) const override {
    k.scale(sums.sums, sums.mass == 0 ? 0 : 1 / sums.mass, row.out, width);
  }

 private:
  float scale_;
};

// The blocks before `end` that attention does not remember, of every head. sums: the router's, per token from
// the start of its block.
std::vector<std::vector<KeyRange>> forgotten_blocks(const Log& sums, Index block, Index end) {
  std::vector<std::vector<KeyRange>> all(static_cast<std::size_t>(sums.width()));
  for (Index first = 0; first + block <= end; first += block) {
    Index last = -1;  // token of the block that exists
    for (const Log::Range& range : sums.present())
      if (range.begin < first + block && range.end > first) last = std::min(range.end, first + block) - 1;
    for (Index h = 0; last >= 0 && h < sums.width(); ++h)
      if (!routed_to_attention(sums.row<double>(last)[h]))
        all[static_cast<std::size_t>(h)].push_back({first, first + block});
  }
  return all;
}

// ranges minus the holes that end at or before `end`; both ascending.
std::vector<KeyRange> without(std::span<const KeyRange> ranges, std::span<const KeyRange> holes, Index end) {
  std::vector<KeyRange> rest;
  std::size_t hole = 0;
  for (KeyRange range : ranges) {
    for (; hole < holes.size() && holes[hole].end <= end && holes[hole].begin < range.end; ++hole) {
      if (range.begin < holes[hole].begin) rest.push_back({range.begin, holes[hole].begin});
      range.begin = std::max(range.begin, holes[hole].end);
      if (holes[hole].end > range.end) break;  // it goes on in the next range
    }
    if (range.begin < range.end) rest.push_back(range);
  }
  return rest;
}

// The queries of the segments of a batch, each with the keys that its router leaves.
class RoutedTiles {
 public:
  // heads: of the attention; group: those that share a router head.
  RoutedTiles(const ProjectionSettings& heads, Index group) : heads_(heads), group_(group) {}

  // keys, values: with the segment's own rows; q, out of the batch.
  void add(const Segment& segment, const Log& keys, const Log& values,
           const std::vector<std::vector<KeyRange>>& forgotten, View<const float> q, View<float> out) {
    const LogCache& cache = caches_.emplace_back(keys, values, nullptr, heads_);
    for (Index h = 0; h < heads_.num_heads; ++h) {
      const Visibility visibility({}, segment, h, keys.present());
      const std::vector<KeyRange>& muted =
          ranges_.emplace_back(visibility.muted().begin(), visibility.muted().end());
      for (Index begin = 0; begin < segment.rows; begin += kTileRows) {
        std::vector<QueryRow>& rows = rows_.emplace_back();
        for (Index r = begin; r < std::min(begin + kTileRows, segment.rows); ++r) {
          const Index row = segment.first_row + r, position = segment.position + r;
          std::vector<KeyRange> seen;
          visibility.append(position, seen);
          seen = without(seen, forgotten[static_cast<std::size_t>(h / group_)], position);
          rows.push_back({q.row(row) + h * heads_.head_dim, out.row(row) + h * heads_.value_head_dim,
                          position, h, ranges_.emplace_back(std::move(seen)), 0, muted});
        }
        tiles_.push_back({&cache, h, rows});
      }
    }
  }

  std::span<const KeyTile> all() const { return tiles_; }

 private:
  const ProjectionSettings& heads_;
  Index group_;
  std::deque<LogCache> caches_;
  std::deque<std::vector<KeyRange>> ranges_;
  std::deque<std::vector<QueryRow>> rows_;
  std::vector<KeyTile> tiles_;
};

class NatsL final : public Layer {
 public:
  NatsL(const NatsLSettings& settings, const Grids& grids, const Parameters& parameters)
      : s_(settings),
        grids_(grids),
        inputs_(parameters, {"q", "k", "v"}, settings.conv, Convolution::Activation::silu),
        gates_(parameters, settings.negative_eigenvalues),
        route_(parameters.tensor("route")),
        mix_(parameters.tensor("mix")),
        gate_(parameters.tensor("gate")),
        o_(parameters.tensor("o")),
        norm_(to_float(parameters.tensor("norm"))),
        attention_norm_(to_float(parameters.tensor("attention_norm"))),
        core_({s_.num_heads, s_.head_dim, s_.value_head_dim, s_.block, s_.decay_for_non_gdn_blocks},
              inputs_.convolves() ? 1 : 0) {
    heads_.num_heads = heads_.num_kv_heads = s_.num_attention_heads;
    heads_.head_dim = s_.attention_key();
    heads_.value_head_dim = s_.attention_value();
    if (s_.qk_norm) {
      q_norm_ = to_float(parameters.tensor("q_norm"));
      k_norm_ = to_float(parameters.tensor("k_norm"));
    }
    if (inputs_.convolves()) fields_.push_back(inputs_.field());
    for (Field& field : core_.fields()) fields_.push_back(std::move(field));
    keys_ = add_log("attention_k", keys(), DType::f32, Field::Order::columns);
    values_ = add_log("attention_v", values(), DType::f32, Field::Order::rows);
    route_sums_ = add_log("route_sum", s_.num_heads, DType::f64, Field::Order::rows);
    const Index heads = s_.num_heads;
    sites_ = {decay_site(heads),
              write_site(heads),
              erase_site(heads),
              state_site(heads, Every::chunk),
              head_site(s_.num_attention_heads, s_.attention_value()),
              gate_site(s_.num_attention_heads, s_.attention_value())};
    add_cache_sites(s_.num_attention_heads, sites_);
    // A window would drop the sums that say where the blocks of the sinks went.
    std::erase_if(sites_, [](const SiteSpec& spec) { return spec.site == Site::window; });
    if (inputs_.convolves()) sites_.push_back(conv_site());
  }

  Signature signature() const override { return {{inputs_.in()}, o_.out()}; }
  std::span<const Field> fields() const override { return fields_; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const View<const float> x = ports.input();
    const Compute& compute = context.compute;
    Arena::Scope scope(scratch());
    const View<float> qkv = scope.rows(x.rows, inputs_.width());
    inputs_.run(x, qkv, segments, kConv, compute);
    if (!inputs_.convolves())  // the convolution brings the activation along
      for_each_block(segments, [&](Index first, Index rows) {
        const View<float> block = qkv.slice_rows(first, rows);
        map_rows(kernels(compute).silu, block, block, compute);
      });
    const View<float> q = qkv.slice_cols(0, keys()), k = qkv.slice_cols(keys(), keys()),
                      v = qkv.slice_cols(2 * keys(), values());
    const View<float> routes = scope.rows(x.rows, s_.num_heads), shares = scope.rows(x.rows, mix_.out() / 2),
                      attention = scope.rows(x.rows, values()), heads = scope.rows(x.rows, values());
    run_differences(route_, x, segments, routes, compute);
    run_differences(mix_, q, segments, shares, compute);
    attend(q, k, v, routes, segments, attention, compute);
    recur(x, q, k, v, routes, segments, heads, compute);
    combine(shares, attention, segments, heads, compute);
    apply_gate(x, segments, heads, compute);
    edit_heads(segments, s_.num_attention_heads, heads, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index rows) {
      o_.run(heads.slice_rows(first, rows), ports.output.slice_rows(first, rows), compute);
    });
  }

  void fold(State& state, Index, Context& context) const override { core_.fold(state, context.compute); }

 private:
  static constexpr Index kConv = 0;  // field of convolution inputs

  Index keys() const { return s_.num_heads * s_.head_dim; }
  Index values() const { return s_.num_heads * s_.value_head_dim; }

  Index add_log(const char* name, Index width, DType dtype, Field::Order order) {
    Field& field = fields_.emplace_back();
    field.name = name;
    field.kind = Field::Kind::log;
    field.shape = {width};
    field.dtype = dtype;
    field.order = order;
    return static_cast<Index>(fields_.size()) - 1;
  }

  // y = first - second of each pair of columns of W x.
  static void run_differences(const Linear& weight, View<const float> x, std::span<const Segment> segments,
                              View<float> y, const Compute& compute) {
    Arena::Scope scope(scratch());
    const View<float> pairs = scope.rows(x.rows, weight.out());
    for_each_block(segments, [&](Index first, Index rows) {
      weight.run(x.slice_rows(first, rows), pairs.slice_rows(first, rows), compute);
      for (Index r = first; r < first + rows; ++r)
        for (Index c = 0; c < y.cols; ++c) y(r, c) = pairs(r, 2 * c) - pairs(r, 2 * c + 1);
    });
  }

  // Sums of the router's differences from the start of every row's block.
  void append_routes(const Segment& segment, View<const float> routes, View<double> sums) const {
    Log& log = segment.state->log(route_sums_);
    const double* before = nullptr;
    if (!log.present().empty() && log.present().back().end == log.end() &&
        (log.end() - 1) / s_.block == segment.position / s_.block)
      before = log.row<double>(log.end() - 1);
    for (Index r = 0; r < segment.rows; ++r) {
      const Index row = segment.first_row + r;
      if (r > 0) before = (segment.position + r) % s_.block == 0 ? nullptr : sums.row(row - 1);
      for (Index h = 0; h < sums.cols; ++h)
        sums(row, h) = (before ? before[h] : 0.0) + static_cast<double>(routes(row, h));
    }
    log.append(segment.position, View<const double>(rows_of(segment, sums)));
  }

  // Softmax attention over the row's own block and those that attention remembers.
  void attend(View<const float> q, View<const float> k, View<const float> v, View<const float> routes,
              std::span<const Segment> segments, View<float> out, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> queries = scope.rows(q.rows, keys()), own_keys = scope.rows(q.rows, keys());
    const View<double> sums(scope.take<double>(q.rows * routes.cols), q.rows, routes.cols);
    for_each_block(segments, [&](Index first, Index rows) {
      prepare(q.slice_rows(first, rows), q_norm_, queries.slice_rows(first, rows), compute);
      prepare(k.slice_rows(first, rows), k_norm_, own_keys.slice_rows(first, rows), compute);
    });
    RoutedTiles tiles(heads_, s_.group());
    for (const Segment& segment : segments) {
      Log &key_log = segment.state->log(keys_), &value_log = segment.state->log(values_);
      key_log.append(segment.position, View<const float>(rows_of(segment, own_keys)));
      value_log.append(segment.position, rows_of(segment, v));
      append_routes(segment, routes, sums);
      tiles.add(
          segment, key_log, value_log,
          forgotten_blocks(segment.state->log(route_sums_), s_.block, segment.position + segment.rows - 1),
          queries, out);
    }
    const SoftmaxRule rule(static_cast<float>(1 / std::sqrt(static_cast<double>(heads_.head_dim))));
    walk_keys(tiles.all(), rule, heads_.head_dim, heads_.value_head_dim, grids_, compute);
  }

  void prepare(View<const float> x, std::span<const float> gain, View<float> y,
               const Compute& compute) const {
    if (s_.qk_norm)
      rms_norm(x, heads_.head_dim, static_cast<float>(s_.norm_eps), gain, y, compute);
    else
      copy_rows(x, y);
  }

  // The delta rule; norms q and k in place. -> o [rows, values()]
  void recur(View<const float> x, View<float> q, View<float> k, View<const float> v, View<const float> routes,
             std::span<const Segment> segments, View<float> o, const Compute& compute) const {
    const Index heads = s_.num_heads;
    Arena::Scope scope(scratch());
    const View<float> g = scope.rows(x.rows, heads), erase = scope.rows(x.rows, heads),
                      write = scope.rows(x.rows, heads), match = scope.rows(x.rows, heads);
    for_each_block(segments, [&](Index first, Index rows) {
      gates_.run(x.slice_rows(first, rows), g.slice_rows(first, rows), write.slice_rows(first, rows),
                 compute);
      copy_rows(write.slice_rows(first, rows), erase.slice_rows(first, rows));
    });
    edit_strengths(segments, {heads, g, erase, write, match});
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s_.head_dim)));
    normalise_heads(segments, heads, q, kNormEps, scale, compute);
    normalise_heads(segments, heads, k, kNormEps, 1, compute);
    core_.run({{q, k, v, g, erase, write, o, match}, routes}, segments, compute);
    edit_reads(segments, heads, o);
  }

  // heads := share norm(heads) + (1 - share) norm(attention), share = sigmoid(shares) per attention head
  void combine(View<float> shares, View<float> attention, std::span<const Segment> segments,
               View<float> heads, const Compute& compute) const {
    const Kernels& k = kernels(compute);
    const Index width = heads_.value_head_dim;
    const auto eps = static_cast<float>(s_.norm_eps);
    for_each_block(segments, [&](Index first, Index rows) {
      const auto block = [&](View<float> all) { return all.slice_rows(first, rows); };
      rms_norm(block(heads), width, eps, norm_, block(heads), compute);
      rms_norm(block(attention), width, eps, attention_norm_, block(attention), compute);
      for_each_row(first, rows, compute.threads, [&](Index r) {
        for (Index h = 0; h < shares.cols; ++h) {
          const float both[2] = {shares(r, h), -shares(r, h)};
          float share[2];
          k.sigmoid(both, share, 2);
          float* head = heads.row(r) + h * width;
          k.scale(head, share[0], head, width);
          k.add_scaled(share[1], attention.row(r) + h * width, head, width);
        }
      });
    });
  }

  void apply_gate(View<const float> x, std::span<const Segment> segments, View<float> heads,
                  const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> factors = scope.rows(x.rows, heads.cols);
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = factors.slice_rows(first, rows);
      gate_.run(x.slice_rows(first, rows), block, compute);
      map_rows(kernels(compute).silu, block, block, compute);
    });
    edit_gates(segments, s_.num_attention_heads, factors);
    for_each_block(segments, [&](Index first, Index rows) {
      const View<float> block = heads.slice_rows(first, rows);
      zip_rows(kernels(compute).multiply, block, factors.slice_rows(first, rows), block, compute);
    });
  }

  NatsLSettings s_;
  Grids grids_;
  ProjectionSettings heads_;  // of the attention
  ConvolvedInputs inputs_;
  DeltaGates gates_;
  Linear route_, mix_, gate_, o_;
  std::vector<float> norm_, attention_norm_, q_norm_, k_norm_;
  RoutedDelta core_;
  Index keys_ = 0, values_ = 0, route_sums_ = 0;  // fields
  std::vector<Field> fields_;
  std::vector<SiteSpec> sites_;
};

}  // namespace

Kind nats_l_kind() {
  Kind kind;
  kind.key = "nats_l";
  kind.group = "recurrent";
  kind.summary = "each block of tokens is remembered by softmax attention or by a gated delta rule (NAtS-L)";
  kind.source = "arXiv 2602.03681; layout of automl/NeuralAttentionSearchLinear";
  kind.examples = {
      R"({"num_heads": 2, "head_dim": 32})",
      R"({"num_heads": 3, "head_dim": 24, "value_head_dim": 40, "num_attention_heads": 6, "block": 16,
          "negative_eigenvalues": true, "decay_for_non_gdn_blocks": false})",
      R"({"num_heads": 2, "head_dim": 18, "value_head_dim": 27, "num_attention_heads": 6, "block": 24,
          "conv": 0, "qk_norm": false})"};
  kind.tensors = [](Config& config) { return nats_l_tensors(read_nats_l(config)); };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    const Grids grids = config.surroundings().grids;
    return std::make_unique<NatsL>(read_nats_l(config), grids, parameters);
  };
  kind.bound_factor = 16;  // norms of small rows, see the page
  kind.twin = make_nats_l_twin;
  return kind;
}

}  // namespace plait
