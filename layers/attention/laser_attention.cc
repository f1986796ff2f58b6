#include "layers/attention/laser_attention.h"

#include <algorithm>
#include <limits>

#include "runtime/kernels/kernels.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = -87;  // e^-87 is a normal f32

// Values become e^(v - M); the side column and every logit get M.
class ValueMaximum final : public Score {
 public:
  explicit ValueMaximum(StageParts& parts)
      : group_(parts.settings.projection.group()),
        width_(parts.settings.projection.value_head_dim),
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

  void apply(const QueryRow&, Index, Index count, const double* side, float* s,
             const Kernels& k) const override {
    k.add_f64(0, 1, side, s, count);
  }

 private:
  Index group_, width_;
  Index field_;
};

class LogSum final : public Readout {
 public:
  // -infinity where no key has a weight.
  void finish(const QueryRow& row, const RowSums& sums, float, Index width, const Kernels& k) const override {
    if (k.maximum(sums.sums, width) == 0) {
      std::fill_n(row.out, width, -kInfinity);
      return;
    }
    // Without muted keys every sum is e^kLowest at least; what is left of muted rows is held to a normal f32.
    k.clamp(sums.sums, std::numeric_limits<float>::min(), kInfinity, row.out, width);
    k.log(row.out, row.out, width);
    k.add_scalar(row.out, sums.maximum, row.out, width);
  }
};

}  // namespace

std::unique_ptr<Score> make_value_maximum(StageParts& parts) { return std::make_unique<ValueMaximum>(parts); }
std::unique_ptr<Readout> make_laser_attention() { return std::make_unique<LogSum>(); }

void LogMassRule::finish(const QueryRow& row, const RowSums& sums, Index, const Kernels& k) const {
  *row.out = log_mass(sums, k);
}

void subtract_log_masses(View<const float> log_masses, std::span<const Segment> segments, View<float> heads,
                         const Compute& compute) {
  const Index width = heads.cols / log_masses.cols;
  for (const Segment& segment : segments)
    for_each_row(segment.first_row, segment.rows, compute.threads, [&](Index r) {
      for (Index h = 0; h < log_masses.cols; ++h) {
        float* head = heads.row(r) + h * width;
        if (*head == -kInfinity)
          std::fill_n(head, width, 0.0f);
        else
          kernels(compute).add_scalar(head, -log_masses(r, h), head, width);
      }
    });
}

}  // namespace plait
