#include <algorithm>

#include "layers/attention/polynomial_core.h"
#include "layers/attention/scalar_decay.h"
#include "layers/attention/tiles.h"
#include "runtime/base/arena.h"

namespace plait {
namespace {

constexpr Index kKeys = 0, kValues = 1, kDecays = 2;  // fields

// Weight of key j for row i: (q_i.k_j)^p exp(G_i - G_j). No maximum: the weights are sums of powers, not of
// exponentials.
class PolynomialRule final : public KeyRule {
 public:
  explicit PolynomialRule(const PolynomialAttentionSettings& settings)
      : degree_(settings.degree), scale_(settings) {}

  bool tracks_maximum() const override { return false; }
  bool start(const QueryRow&, float&, float&) const override { return false; }

  void logits(const QueryRow& row, Index, Index count, const double* side, float* s,
              const Kernels& k) const override {
    raise(degree_, s, count, k);
    if (!side) return;
    Arena::Scope scope(scratch());
    float* decay = scope.take(count);
    k.exp_difference_from(row.side, side, decay, count);
    k.multiply(s, decay, s, count);
  }

  void numerators(const QueryRow&, float, const float* s, float* p, Index count,
                  const Kernels&) const override {
    std::copy_n(s, count, p);
  }

  void finish(const QueryRow& row, const RowSums& sums, Index value_width, const Kernels& k) const override {
    k.scale(sums.sums, scale_.factor(row.position, row.head, sums.mass, k), row.out, value_width);
  }

 private:
  Index degree_;
  PolynomialScale scale_;
};

class QuadraticPolynomial final : public PolynomialCore {
 public:
  QuadraticPolynomial(const PolynomialAttentionSettings& settings, const Grids& grids)
      : heads_(settings.projection), grids_(grids), rule_(settings) {
    add_log("k", heads_.num_kv_heads * heads_.head_dim, DType::f32, Field::Order::columns);
    add_log("v", heads_.num_kv_heads * heads_.value_head_dim, DType::f32, Field::Order::rows);
    if (settings.decay == PolynomialAttentionSettings::Decay::scalar)
      add_log("g_sum", heads_.num_heads, DType::f64, Field::Order::columns);
  }

  std::span<const Field> fields() const override { return fields_; }

  void run(std::span<const Segment> segments, const PolynomialRows& rows, View<float> out,
           const Compute& compute) const override {
    Arena::Scope scope(scratch());
    const Index width = has_decay() ? heads_.num_heads : 0;
    const View<double> sums(scope.take<double>(rows.q.rows * width), rows.q.rows, width);
    Tiles tiles(heads_, heads_.value_head_dim);
    for (const Segment& segment : segments) {
      if (has_decay()) append_sums(segment, rows.decay, sums, segment.state->log(kDecays));
      Log& keys = segment.state->log(kKeys);
      Log& values = segment.state->log(kValues);
      keys.append(segment.position, rows.k.slice_rows(segment.first_row, segment.rows));
      values.append(segment.position, rows.v.slice_rows(segment.first_row, segment.rows));
      if (has_decay())
        tiles.add(segment, {keys, values, &segment.state->log(kDecays), {}, sums, {}, {}}, rows.q, out);
      else
        tiles.add(segment, {keys, values, nullptr, {}, {}, {}, {}}, rows.q, out);
    }
    walk_keys(tiles.all(), rule_, heads_.head_dim, heads_.value_head_dim, grids_, compute);
  }

  void fold(State&, Index, const Compute&) const override {}
  SiteSpec state_site() const override { return row_state_site(heads_.num_heads); }

 private:
  bool has_decay() const { return fields_.size() > kDecays; }

  void add_log(const std::string& name, Index width, DType dtype, Field::Order order) {
    Field field;
    field.name = name;
    field.kind = Field::Kind::log;
    field.shape = {width};
    field.dtype = dtype;
    field.order = order;
    fields_.push_back(field);
  }

  ProjectionSettings heads_;
  Grids grids_;
  PolynomialRule rule_;
  std::vector<Field> fields_;
};

}  // namespace

std::unique_ptr<PolynomialCore> make_quadratic_polynomial(const PolynomialAttentionSettings& settings,
                                                          const Grids& grids) {
  return std::make_unique<QuadraticPolynomial>(settings, grids);
}

}  // namespace plait
