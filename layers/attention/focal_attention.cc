// score: focal_attention. s := s / t, or s sqrt(head_dim) / tau with a tau from the token, the mean so far or
// the mean of the whole sequence
#include <algorithm>
#include <cmath>

#include "layers/attention/stages.h"
#include "runtime/base/arena.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/rows.h"

namespace plait {
namespace {

// prefix_mean keeps the sum of tau before it is clipped and the number of its tokens, f64, after every token;
// only the last row of this log is read.
class LearnedTemperature final : public Score {
 public:
  LearnedTemperature(const FocalAttention& settings, StageParts& parts)
      : s_(settings),
        root_(std::sqrt(static_cast<double>(parts.settings.projection.head_dim))),
        tau_(parts.parameters.tensor("focal_tau")),
        column_(parts.take_numbers(1)) {
    if (s_.mode != FocalAttention::Mode::prefix_mean) return;
    Field field = parts.log("tau_sum", 2, DType::f64, Field::Order::rows);
    field.window = 2;  // the row before and its own
    field.sinks = 0;
    field_ = parts.add(field);
  }

  // The factor sqrt(head_dim) / tau of every row.
  void prepare(const RowNumbers& rows, std::span<const Segment> segments,
               const Compute& compute) const override {
    Arena::Scope scope(scratch());
    const View<float> tau = scope.rows(rows.x.rows, 1);
    for_each_block(segments, [&](Index first, Index count) {
      tau_.run(rows.x.slice_rows(first, count), tau.slice_rows(first, count), compute);
    });
    for (const Segment& segment : segments) {
      if (s_.mode == FocalAttention::Mode::prefix_mean) average(segment, tau, segment.state->log(field_));
      if (s_.mode == FocalAttention::Mode::full_mean) average(segment, tau);
      for (Index r = segment.first_row; r < segment.first_row + segment.rows; ++r)
        rows.numbers(r, column_) =
            static_cast<float>(root_ / std::clamp(static_cast<double>(tau(r, 0)), s_.tau_min, s_.tau_max));
    }
  }

  void apply(const QueryRow& row, Index, Index count, const double*, float* s,
             const Kernels& k) const override {
    k.scale(s, row.numbers[column_], s, count);
  }

 private:
  // tau of a segment's rows := their mean with all tokens before
  static void average(const Segment& segment, View<float> tau, Log& log) {
    double sum[2] = {0, 0};
    if (!log.present().empty() && log.present().back().end == log.end())
      std::copy_n(log.row<double>(log.end() - 1), 2, sum);
    for (Index r = 0; r < segment.rows; ++r) {
      float& value = tau(segment.first_row + r, 0);
      sum[0] += static_cast<double>(value);
      sum[1] += 1;
      value = static_cast<float>(sum[0] / sum[1]);
      log.append(segment.position + r, View<const double>(sum, 1, 2));
    }
  }

  // := the mean of all
  static void average(const Segment& segment, View<float> tau) {
    double sum = 0;
    for (Index r = 0; r < segment.rows; ++r) sum += static_cast<double>(tau(segment.first_row + r, 0));
    for (Index r = 0; r < segment.rows; ++r)
      tau(segment.first_row + r, 0) = static_cast<float>(sum / static_cast<double>(segment.rows));
  }

  FocalAttention s_;
  double root_;
  Linear tau_;
  Index column_, field_ = -1;
};

}  // namespace

std::unique_ptr<Score> make_focal_attention(const FocalAttention& settings, StageParts& parts) {
  if (settings.mode == FocalAttention::Mode::fixed) return make_scaled_dot(1 / settings.t);
  return std::make_unique<LearnedTemperature>(settings, parts);
}

}  // namespace plait
