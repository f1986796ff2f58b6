#include "layers/attention/softmax_free_attention.h"

#include <algorithm>
#include <cmath>

#include "layers/attention/whole_sequence.h"
#include "layers/reference/softmax_free_attention.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/edit_rows.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

// Weights e^(-|q - k|^2 / 2) = e^(q.k - |q|^2 / 2 - |k|^2 / 2), the halved squares being the sides.
class GaussianRule final : public KeyRule {
 public:
  bool tracks_maximum() const override { return false; }
  bool start(const QueryRow&, float&, float&) const override { return false; }
  void logits(const QueryRow& row, Index, Index count, const double* side, float* s,
              const Kernels& k) const override {
    k.add_f64(-row.side, -1, side, s, count);
  }
  void numerators(const QueryRow&, float, const float* s, float* p, Index count,
                  const Kernels& k) const override {
    k.exp(s, p, count);
  }
  void finish(const QueryRow& row, const RowSums& sums, Index width, const Kernels&) const override {
    std::copy_n(sums.sums, width, row.out);
  }
};

using Square = View<double>;

// c := a b, all [n, n]
void product(Square a, Square b, Square c, const Compute& compute) {
  parallel_for(compute.threads, a.rows, [&](Index i) {
    double* row = c.row(i);
    std::fill_n(row, c.cols, 0.0);
    for (Index l = 0; l < a.cols; ++l) {
      const double factor = a(i, l);
      const double* other = b.row(l);
      for (Index j = 0; j < c.cols; ++j) row[j] += factor * other[j];
    }
  });
}

double greatest_row_sum(Square a) {
  double most = 0;
  for (Index i = 0; i < a.rows; ++i) {
    double sum = 0;
    for (Index j = 0; j < a.cols; ++j) sum += a(i, j);
    most = std::max(most, sum);
  }
  return most;
}

class SoftmaxFreeAttention final : public Layer {
 public:
  SoftmaxFreeAttention(const SoftmaxFreeAttentionSettings& settings, const Grids& grids,
                       const Parameters& parameters)
      : s_(settings),
        grids_(grids),
        q_(parameters.tensor("q")),
        v_(parameters.tensor("v")),
        o_(parameters.tensor("o")),
        landmark_(parameters.tensor("landmark")),
        sites_{head_site(s_.num_heads, s_.head_dim)},
        gain_(to_float(parameters.tensor("landmark_norm"))),
        shift_(to_float(parameters.tensor("landmark_norm_bias"))) {
    if (s_.conv > 0) taps_ = to_float(parameters.tensor("taps"));
    if (!s_.bias) return;
    q_bias_ = to_float(parameters.tensor("q_bias"));
    v_bias_ = to_float(parameters.tensor("v_bias"));
    o_bias_ = to_float(parameters.tensor("o_bias"));
  }

  Signature signature() const override { return {{s_.width}, s_.width}; }
  std::span<const SiteSpec> sites() const override { return sites_; }

  void run(const Ports& ports, std::span<const Segment> segments, Context& context) const override {
    const Compute& compute = context.compute;
    const View<const float> x = ports.input();
    Arena::Scope scope(scratch());
    const View<float> q = scope.rows(x.rows, q_.out()), v = scope.rows(x.rows, v_.out()),
                      heads = scope.rows(x.rows, o_.in());
    const auto scale = static_cast<float>(1 / std::sqrt(std::sqrt(static_cast<double>(s_.head_dim))));
    for_each_block(segments, [&](Index first, Index count) {
      const View<const float> rows = x.slice_rows(first, count);
      affine(q_, q_bias_, rows, q.slice_rows(first, count), compute);
      scale_rows(q.slice_rows(first, count), scale, q.slice_rows(first, count), compute);
      affine(v_, v_bias_, rows, v.slice_rows(first, count), compute);
    });
    for (const Segment& segment : segments) {
      const auto own = [&](View<float> all) { return all.slice_rows(segment.first_row, segment.rows); };
      attend(own(q), own(v), own(heads), compute);
      if (s_.conv > 0) convolve(own(v), own(heads), compute);
    }
    edit_heads(segments, s_.num_heads, heads, HeadEdits::all);
    for_each_block(segments, [&](Index first, Index count) {
      affine(o_, o_bias_, heads.slice_rows(first, count), ports.output.slice_rows(first, count), compute);
    });
  }

 private:
  static void affine(const Linear& weight, std::span<const float> bias, View<const float> x, View<float> y,
                     const Compute& compute) {
    weight.run(x, y, compute);
    if (!bias.empty()) add_bias(bias, y, compute);
  }

  // One sequence.
  void attend(View<const float> q, View<const float> v, View<float> out, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const View<float> z = landmarks(q, scope, compute);
    if (s_.ratio == 1) return walk(z, z, v, out, compute);
    if (z.rows == 0) return fill_rows(0, out);
    const View<float> gathered = scope.rows(z.rows, v.cols);
    walk(z, q, v, gathered, compute);
    for (Index h = 0; h < s_.num_heads; ++h)
      solve(z.slice_cols(h * s_.head_dim, s_.head_dim), gathered.slice_cols(h * s_.head_dim, s_.head_dim),
            compute);
    walk(q, z, gathered, out, compute);
  }

  // q [tokens, num_heads * head_dim] -> [landmarks, num_heads * head_dim]
  View<float> landmarks(View<const float> q, Arena::Scope& scope, const Compute& compute) const {
    const Index d = s_.head_dim, count = s_.landmarks(q.rows), tokens = s_.patch_tokens();
    const View<float> all = scope.rows(count, s_.num_heads * d), z(all.data, count * s_.num_heads, d);
    Arena::Scope own(scratch());
    const View<float> patches = own.rows(z.rows, tokens * d);
    for (Index a = 0; a < count; ++a)
      for (Index i = 0; i < tokens; ++i) {
        const float* token = q.row(s_.patch_token(q.rows, a, i));
        for (Index h = 0; h < s_.num_heads; ++h)
          std::copy_n(token + h * d, d, patches.row(a * s_.num_heads + h) + i * d);
      }
    landmark_.run(patches, z, compute);
    layer_norm(z, d, static_cast<float>(s_.eps), gain_, shift_, z, compute);
    map_rows(kernels(compute).gelu, z, z, compute);
    return all;
  }

  // The halved square of every head of every row, [num_heads, rows].
  View<double> halved_squares(View<const float> rows, Arena::Scope& scope, const Kernels& k) const {
    const View<double> all(scope.take<double>(s_.num_heads * rows.rows), s_.num_heads, rows.rows);
    for (Index h = 0; h < s_.num_heads; ++h)
      for (Index r = 0; r < rows.rows; ++r)
        all(h, r) = static_cast<double>(k.sum_squares(rows.row(r) + h * s_.head_dim, s_.head_dim)) / 2;
    return all;
  }

  // out := kernel(queries, keys) times values, per head
  void walk(View<const float> queries, View<const float> keys, View<const float> values, View<float> out,
            const Compute& compute) const {
    Arena::Scope scope(scratch());
    const Index d = s_.head_dim;
    const View<double> query_squares = halved_squares(queries, scope, kernels(compute)),
                       key_squares = halved_squares(keys, scope, kernels(compute));
    const KeyArray array({keys, d}, {values, d}, key_squares, scope);
    WholeTiles tiles(s_.num_heads);
    tiles.add(array, {queries, d}, query_squares, out);
    walk_keys(tiles.all(), GaussianRule(), d, d, grids_, compute);
  }

  // One head: values := the iterated inverse of the landmarks' kernel times values, in f64, because what the
  // kernel lacks in rank the inverse magnifies. z, values [landmarks, head_dim]
  void solve(View<const float> z, View<float> values, const Compute& compute) const {
    Arena::Scope scope(scratch());
    const Index n = z.rows;
    const auto square = [&] { return Square(scope.take<double>(n * n), n, n); };
    const Square p = square();
    landmark_kernel(z, p, kernels(compute));
    double* factors = scope.take<double>(n);
    for (Index a = 0; a < n; ++a) factors[a] = s_.normalised ? inverse_root_of_sum(p, a) : 1.0;
    const Square v = square(), vp = square(), vpv = square();
    start(p, v, vp, compute);
    for (Index it = 0; it < s_.iterations; ++it) {
      product(v, p, vp, compute);
      product(vp, v, vpv, compute);
      for (Index i = 0; i < n * n; ++i) v.data[i] = 2 * v.data[i] - vpv.data[i];
    }
    apply(v, factors, values);
  }

  void landmark_kernel(View<const float> z, Square p, const Kernels& k) const {
    Arena::Scope scope(scratch());
    float* row = scope.take(z.rows);
    for (Index a = 0; a < z.rows; ++a) {
      for (Index b = 0; b < z.rows; ++b) {
        double sum = 0;
        for (Index c = 0; c < z.cols; ++c) {
          const double difference = static_cast<double>(z(a, c)) - static_cast<double>(z(b, c));
          sum += difference * difference;
        }
        row[b] = static_cast<float>(-sum / 2);
      }
      k.exp(row, row, z.rows);
      for (Index b = 0; b < z.rows; ++b) p(a, b) = static_cast<double>(row[b]);
    }
  }

  static double inverse_root_of_sum(Square p, Index row) {
    double sum = 0;
    for (Index j = 0; j < p.cols; ++j) sum += p(row, j);
    return 1 / std::sqrt(sum);
  }

  // v := alpha p, where the iteration starts; adds the ridge to p. room [n, n] is for scratch.
  void start(Square p, Square v, Square room, const Compute& compute) const {
    const double most = greatest_row_sum(p);
    double alpha = (s_.normalised ? 2 : 1.8) / (most * most);
    for (Index i = 0; i < p.rows && !s_.normalised; ++i) p(i, i) += s_.ridge;
    const auto set = [&] {
      for (Index i = 0; i < p.rows * p.cols; ++i) v.data[i] = alpha * p.data[i];
    };
    set();
    for (int halved = 0; s_.normalised && halved < 10; ++halved) {
      product(p, v, room, compute);
      for (Index i = 0; i < p.rows; ++i)
        for (Index j = 0; j < p.cols; ++j) room(i, j) = std::abs((i == j ? 1 : 0) - room(i, j));
      // p and v commute and are symmetric: rows sum to what columns sum to.
      if (greatest_row_sum(room) <= 1.01) return;
      alpha /= 2;
      set();
    }
  }

  // values := D v D values, D the diagonal of `factors`
  void apply(Square v, const double* factors, View<float> values) const {
    Arena::Scope scope(scratch());
    double *scaled = scope.take<double>(values.rows * values.cols), *sums = scope.take<double>(values.cols);
    for (Index a = 0; a < values.rows; ++a)
      for (Index c = 0; c < values.cols; ++c)
        scaled[a * values.cols + c] = factors[a] * static_cast<double>(values(a, c));
    for (Index a = 0; a < values.rows; ++a) {
      std::fill_n(sums, values.cols, 0.0);
      for (Index b = 0; b < values.rows; ++b)
        for (Index c = 0; c < values.cols; ++c) sums[c] += v(a, b) * scaled[b * values.cols + c];
      for (Index c = 0; c < values.cols; ++c) values(a, c) = static_cast<float>(factors[a] * sums[c]);
    }
  }

  // out += the values around each token of the grid, under its head's taps; none where the grid ends
  void convolve(View<const float> v, View<float> out, const Compute& compute) const {
    const Kernels& k = kernels(compute);
    const Index d = s_.head_dim, columns = s_.columns(v.rows), high = s_.rows_of(s_.conv);
    for_each_row(0, v.rows, compute.threads, [&](Index t) {
      for (Index i = 0; i < high * s_.conv; ++i) {
        const Index row = t / columns + i / s_.conv - high / 2,
                    column = t % columns + i % s_.conv - s_.conv / 2;
        const Index source = row * columns + column;
        if (row < 0 || column < 0 || column >= columns || source >= v.rows) continue;
        for (Index h = 0; h < s_.num_heads; ++h)
          k.add_scaled(taps_[static_cast<std::size_t>(h * high * s_.conv + i)], v.row(source) + h * d,
                       out.row(t) + h * d, d);
      }
    });
  }

  SoftmaxFreeAttentionSettings s_;
  Grids grids_;
  Linear q_, v_, o_, landmark_;
  std::vector<SiteSpec> sites_;
  std::vector<float> gain_, shift_, taps_, q_bias_, v_bias_, o_bias_;
};

}  // namespace

Kind softmax_free_attention_kind() {
  Kind kind;
  kind.key = "softmax_free_attention";
  kind.group = "attention";
  kind.summary = "a Gaussian kernel between tokens through landmarks, without softmax; encoders only";
  kind.source = "Lu et al., SOFT, arXiv 2110.11945; SOFT++, arXiv 2207.03341";
  kind.graphs = Kind::Graphs::encoder;
  kind.examples = {
      R"({"num_heads": 4, "head_dim": 16, "ratio": 4})",
      R"({"num_heads": 2, "head_dim": 24, "ratio": 2, "grid_width": 10, "conv": 3})",
      R"({"num_heads": 2, "head_dim": 16, "ratio": 5, "normalised": true, "conv": 5, "bias": false})",
      R"({"num_heads": 2, "head_dim": 16, "ratio": 1, "grid_width": 8, "conv": 3})",
  };
  kind.tensors = [](Config& config) {
    return softmax_free_attention_tensors(read_softmax_free_attention(config));
  };
  kind.make = [](Config& config, const Parameters& parameters) -> std::unique_ptr<Layer> {
    return std::make_unique<SoftmaxFreeAttention>(read_softmax_free_attention(config),
                                                  config.surroundings().grids, parameters);
  };
  kind.twin = make_softmax_free_attention_twin;
  return kind;
}

}  // namespace plait
