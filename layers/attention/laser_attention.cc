#include "layers/attention/laser_attention.h"

#include <algorithm>
#include <limits>

#include "runtime/kernels/kernels.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

constexpr float kLowest = -87;  // e^-87 is a normal f32

// Values become e^(v - M); the side column and every logit get M. Logits are taken relative to the row's
// greatest one before, so that their size costs no accuracy; those of muted keys go, so that nothing of the
// others underflows beside them.
class ValueMaximum final : public Score {
 public:
  ValueMaximum(StageParts& parts, Index masses)
      : group_(parts.settings.projection.group()),
        width_(parts.settings.projection.value_head_dim),
        masses_(masses),
        field_(parts.add(
            parts.log("v_max", parts.settings.projection.num_heads, DType::f64, Field::Order::columns))) {}

  std::optional<Index> side_field() const override { return field_; }

  void prepare(const RowNumbers& rows, std::span<const Segment> segments,
               const Compute& compute) const override {
    const Kernels& k = kernels(compute);
    for (const Segment& segment : segments) {
      for_each_row(segment.first_row, segment.rows, compute.threads, [&](Index r) {
        for (Index h = 0; h < rows.sides.cols; h += group_) {
          float* v = rows.v.row(r) + h / group_ * width_;
          const float greatest = k.maximum(v, width_);
          k.add_scalar(v, -greatest, v, width_);
          k.clamp(v, kLowest, 0, v, width_);
          k.exp(v, v, width_);
          std::fill_n(rows.sides.row(r) + h, group_, static_cast<double>(greatest));
        }
      });
      segment.state->log(field_).append(
          segment.position, View<const double>(rows.sides.slice_rows(segment.first_row, segment.rows)));
    }
  }

  void apply(const QueryRow& row, Index first, Index count, const double* side, float* s,
             const Kernels& k) const override {
    k.add_f64(-double{row.numbers[masses_ + 2 * row.head]}, 1, side, s, count);
    for (const KeyRange& muted : row.muted) {
      const Index begin = std::max(muted.begin, first), end = std::min(muted.end, first + count);
      if (begin < end)
        std::fill(s + (begin - first), s + (end - first), std::numeric_limits<float>::lowest());
    }
  }

 private:
  Index group_, width_, masses_;
  Index field_;
};

class LogSum final : public Readout {
 public:
  explicit LogSum(Index masses) : masses_(masses) {}

  void finish(const QueryRow& row, const RowSums& sums, float, Index width, const Kernels& k) const override {
    // A key with a weight gives every channel e^kLowest at least.
    if (k.maximum(sums.sums, width) == 0) {
      std::fill_n(row.out, width, 0.0f);
      return;
    }
    k.log(sums.sums, row.out, width);
    k.add_scalar(row.out, sums.maximum - row.numbers[masses_ + 2 * row.head + 1], row.out, width);
  }

 private:
  Index masses_;
};

}  // namespace

std::unique_ptr<Score> make_value_maximum(StageParts& parts, Index masses) {
  return std::make_unique<ValueMaximum>(parts, masses);
}
std::unique_ptr<Readout> make_laser_attention(Index masses) { return std::make_unique<LogSum>(masses); }

void MassRule::finish(const QueryRow& row, const RowSums& sums, Index, const Kernels& k) const {
  row.out[0] = sums.maximum;
  k.log(&sums.mass, row.out + 1, 1);
}

}  // namespace plait
