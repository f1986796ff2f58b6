#include "layers/recurrent/feature_maps.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/rotary.h"
#include "runtime/kernels/rowwise.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

// d^(-1/4), which gives products of queries and keys the factor d^(-1/2)
float fourth_root_scale(Index d) {
  return static_cast<float>(1 / std::sqrt(std::sqrt(static_cast<double>(d))));
}

class Elementwise final : public FeatureMap {
 public:
  Elementwise(Index head_dim, Kernels::Map Kernels::*f) : head_dim_(head_dim), f_(f) {}
  Index width() const override { return head_dim_; }
  void run(Side, std::span<const Segment> segments, View<const float> x, View<float> y,
           const Compute& compute) const override {
    for_each_block(segments, [&](Index first, Index rows) {
      if (f_)
        map_rows(kernels(compute).*f_, x.slice_rows(first, rows), y.slice_rows(first, rows), compute);
      else
        copy_rows(x.slice_rows(first, rows), y.slice_rows(first, rows));
    });
  }

 private:
  Index head_dim_;
  Kernels::Map Kernels::*f_;
};

// A map of one head's vector, head by head.
class OfHeads : public FeatureMap {
 public:
  explicit OfHeads(Index head_dim) : d_(head_dim) {}
  void run(Side, std::span<const Segment> segments, View<const float> x, View<float> y,
           const Compute& compute) const final {
    const Kernels& k = kernels(compute);
    for_each_block(segments, [&](Index first, Index rows) {
      for_each_row(first, rows, compute.threads, [&](Index r) {
        for (Index c = 0, h = 0; c < x.cols; c += d_, ++h) map(x.row(r) + c, y.row(r) + h * row(), k);
      });
    });
  }

 protected:
  virtual void map(const float* x, float* y, const Kernels& k) const = 0;
  const Index d_;
};

// squares u_i^2, products u_i u_j for i < j: d (d + 1) / 2 features.
void second_order(const float* u, Index d, float squares, float products, float* y, const Kernels& k) {
  k.square(u, y, d);
  k.scale(y, squares, y, d);
  y += d;
  for (Index i = 0; i + 1 < d; y += d - 1 - i, ++i) k.scale(u + i + 1, products * u[i], y, d - 1 - i);
}

class Taylor final : public OfHeads {
 public:
  explicit Taylor(Index head_dim) : OfHeads(head_dim), scale_(fourth_root_scale(head_dim)) {}
  Index width() const override { return 1 + d_ + d_ * (d_ + 1) / 2; }

 private:
  void map(const float* x, float* y, const Kernels& k) const override {
    float* u = y + 1;
    y[0] = 1;
    k.scale(x, scale_, u, d_);
    second_order(u, d_, static_cast<float>(std::numbers::sqrt2 / 2), 1, u + d_, k);
  }

  float scale_;
};

class Quadratic final : public OfHeads {
 public:
  Quadratic(Index head_dim, bool with_root)
      : OfHeads(head_dim), scale_(fourth_root_scale(head_dim)), with_root_(with_root) {}
  Index width() const override { return d_ * (d_ + 1) / 2; }
  Index root() const override { return with_root_ ? d_ : 0; }

 private:
  void map(const float* x, float* y, const Kernels& k) const override {
    Arena::Scope scope(scratch());
    float* u = with_root_ ? y : scope.take(d_);
    k.scale(x, scale_, u, d_);
    second_order(u, d_, 1, static_cast<float>(std::numbers::sqrt2), y + root(), k);
  }

  float scale_;
  bool with_root_;
};

// Exponents are z_m.u - |u|^2 / 2 = |z_m|^2 / 2 - |u - z_m|^2 / 2. A key's are lowered by what the bound
// |z_m|^2 / 2 has above kHighest, a constant of the feature; the query gets it back, and loses its row's
// maximum, which cancels in the division by the sum of weights.
class PositiveRandom final : public FeatureMap {
 public:
  PositiveRandom(const Tensor& z, const Tensor& a)
      : directions_(z), scale_(fourth_root_scale(directions_.in())) {
    const std::vector<float> all = to_float(z), weights = to_float(a);
    for (Index m = 0; m < width(); ++m) {
      double square = 0;
      for (Index i = m * head_dim(); i < (m + 1) * head_dim(); ++i) {
        const double value = static_cast<double>(all[static_cast<std::size_t>(i)]);
        square += value * value;
      }
      const double lowered = std::max(square / 2 - kHighest, 0.0);
      const double weight = static_cast<double>(weights[static_cast<std::size_t>(m)]);
      key_shifts_.push_back(static_cast<float>(-lowered));
      query_shifts_.push_back(weight > 0 ? static_cast<float>(portable_log(weight) + lowered) : kOff);
    }
  }
  Index width() const override { return directions_.out(); }

  void run(Side side, std::span<const Segment> segments, View<const float> x, View<float> y,
           const Compute& compute) const override {
    Arena::Scope scope(scratch());
    const View<float> u = scope.rows(x.rows, x.cols);
    for_each_block(segments, [&](Index first, Index rows) {
      scale_rows(x.slice_rows(first, rows), scale_, u.slice_rows(first, rows), compute);
      for (Index h = 0; h < x.cols / head_dim(); ++h)
        run_head(side, u.slice_rows(first, rows).slice_cols(h * head_dim(), head_dim()),
                 y.slice_rows(first, rows).slice_cols(h * width(), width()), compute);
    });
  }

 private:
  static constexpr double kHighest = 60;  // e^60 leaves room for a sum of e^28 values
  static constexpr float kOff = -1e30f;   // the exponent of a feature with weight 0

  Index head_dim() const { return directions_.in(); }

  void run_head(Side side, View<const float> u, View<float> y, const Compute& compute) const {
    directions_.run(u, y, compute);
    const Kernels& k = kernels(compute);
    for_each_row(0, u.rows, compute.threads, [&](Index r) {
      float* row = y.row(r);
      k.add(row, (side == Side::key ? key_shifts_ : query_shifts_).data(), row, width());
      const float shift = side == Side::key ? 0.5f * k.sum_squares(u.row(r), head_dim())
                                            : std::max(k.maximum(row, width()), kOff / 2);
      k.exp_minus(row, shift, row, width());
    });
  }

  Linear directions_;
  float scale_;
  std::vector<float> key_shifts_, query_shifts_;
};

class Cosine final : public FeatureMap {
 public:
  Cosine(Index head_dim, Kernels::Map Kernels::*f, Index reach) : d_(head_dim), f_(f), reach_(reach) {}
  Index width() const override { return 2 * d_; }
  void run(Side, std::span<const Segment> segments, View<const float> x, View<float> y,
           const Compute& compute) const override {
    const Kernels& k = kernels(compute);
    for (const Segment& segment : segments)
      for_each_row(segment.first_row, segment.rows, compute.threads, [&](Index r) {
        const Index position = segment.position + r - segment.first_row;
        const double angle =
            std::numbers::pi / 2 * static_cast<double>(position + 1) / static_cast<double>(reach_);
        float sine = 0, cosine = 0;
        k.sin_cos(&angle, &sine, &cosine, 1);
        for (Index h = 0; h < x.cols / d_; ++h) {
          float *first = y.row(r) + 2 * h * d_, *second = first + d_;
          (k.*f_)(x.row(r) + h * d_, second, d_);
          k.scale(second, sine, first, d_);
          k.scale(second, cosine, second, d_);
        }
      });
  }

 private:
  Index d_;
  Kernels::Map Kernels::*f_;
  Index reach_;
};

// What happens to queries and keys in front of a map.
class Prepared : public FeatureMap {
 public:
  Prepared(std::unique_ptr<FeatureMap> map, FeatureNorm queries, FeatureNorm keys)
      : map_(std::move(map)), queries_(std::move(queries)), keys_(std::move(keys)) {}
  Index width() const final { return map_->width(); }
  Index root() const final { return map_->root(); }
  void run(Side side, std::span<const Segment> segments, View<const float> x, View<float> y,
           const Compute& compute) const final {
    const FeatureNorm& norm = side == Side::query ? queries_ : keys_;
    Arena::Scope scope(scratch());
    const View<float> prepared = scope.rows(x.rows, x.cols);
    for_each_block(segments, [&](Index first, Index rows) {
      prepare(norm, x.slice_rows(first, rows), prepared.slice_rows(first, rows), compute);
    });
    map_->run(side, segments, prepared, y, compute);
  }

 protected:
  virtual void prepare(const FeatureNorm& norm, View<const float> x, View<float> y,
                       const Compute& compute) const = 0;

 private:
  std::unique_ptr<FeatureMap> map_;
  FeatureNorm queries_, keys_;
};

class Normed final : public Prepared {
 public:
  Normed(std::unique_ptr<FeatureMap> map, FeatureNorm queries, FeatureNorm keys, float eps)
      : Prepared(std::move(map), std::move(queries), std::move(keys)), eps_(eps) {}

 private:
  void prepare(const FeatureNorm& norm, View<const float> x, View<float> y,
               const Compute& compute) const override {
    layer_norm(x, static_cast<Index>(norm.gain.size()), eps_, norm.gain, norm.bias, y, compute);
  }

  float eps_;
};

class Scaled final : public Prepared {
 public:
  using Prepared::Prepared;

 private:
  void prepare(const FeatureNorm& norm, View<const float> x, View<float> y,
               const Compute& compute) const override {
    const Kernels& k = kernels(compute);
    for_each_row(0, x.rows, compute.threads, [&](Index r) {
      if (norm.bias.empty()) return k.multiply(x.row(r), norm.gain.data(), y.row(r), x.cols);
      std::copy(norm.bias.begin(), norm.bias.end(), y.row(r));
      k.multiply_add(x.row(r), norm.gain.data(), y.row(r), x.cols);
    });
  }
};

}  // namespace

std::unique_ptr<FeatureMap> elementwise_features(Index head_dim, Kernels::Map Kernels::*f) {
  return std::make_unique<Elementwise>(head_dim, f);
}
std::unique_ptr<FeatureMap> taylor_features(Index head_dim) { return std::make_unique<Taylor>(head_dim); }
std::unique_ptr<FeatureMap> positive_random_features(const Tensor& z, const Tensor& a) {
  return std::make_unique<PositiveRandom>(z, a);
}
std::unique_ptr<FeatureMap> cosine_reweighting(Index head_dim, Kernels::Map Kernels::*f, Index reach) {
  return std::make_unique<Cosine>(head_dim, f, reach);
}
std::unique_ptr<FeatureMap> quadratic_features(Index head_dim, bool with_root) {
  return std::make_unique<Quadratic>(head_dim, with_root);
}
std::unique_ptr<FeatureMap> normed_features(std::unique_ptr<FeatureMap> map, FeatureNorm queries,
                                            FeatureNorm keys, float eps) {
  return std::make_unique<Normed>(std::move(map), std::move(queries), std::move(keys), eps);
}
std::unique_ptr<FeatureMap> scaled_features(std::unique_ptr<FeatureMap> map, FeatureNorm queries,
                                            FeatureNorm keys) {
  return std::make_unique<Scaled>(std::move(map), std::move(queries), std::move(keys));
}

}  // namespace plait
