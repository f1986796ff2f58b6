// score: forgetting_attention. s_ij := s_ij + c_i - c_j, c = running sums of log f. Site: decay.
#include "layers/attention/scalar_decay.h"
#include "layers/attention/stages.h"
#include "runtime/base/arena.h"

namespace plait {
namespace {

class ForgettingScore final : public Score {
 public:
  ForgettingScore(const ForgettingAttention& settings, StageParts& parts)
      : gate_(settings.per_token ? &parts.parameters.tensor("forget") : nullptr,
              parts.parameters.tensor("forget_bias")),
        field_(parts.add(sums_field(parts, gate_.heads()))) {
    parts.sites.push_back(gate_.site());
    if (settings.pruning)
      furthest_ = -prune_threshold(*settings.pruning, parts.settings.projection,
                                   scale_of(parts.settings.score.front()), parts.parameters);
  }

  std::optional<Index> side_field() const override { return field_; }
  std::optional<double> furthest_side() const override { return furthest_; }

  void prepare(const RowNumbers& rows, std::span<const Segment> segments,
               const Compute& compute) const override {
    Arena::Scope scope(scratch());
    const View<float> log_f = scope.rows(rows.x.rows, gate_.heads());
    gate_.run(rows.x, segments, log_f, compute);
    for (const Segment& segment : segments)
      append_sums(segment, log_f, rows.sides, segment.state->log(field_));
  }

  void apply(const QueryRow& row, Index, Index count, const double* side, float* s,
             const Kernels& k) const override {
    k.add_f64(row.side, -1, side, s, count);
  }

 private:
  static Field sums_field(const StageParts& parts, Index heads) {
    Field field = parts.log("log_f_sum", heads, DType::f64, Field::Order::columns);
    if (field.window == 1) field.window = 2;  // a sum continues from the row before
    return field;
  }

  ScalarDecay gate_;
  Index field_;
  std::optional<double> furthest_;
};

}  // namespace

std::unique_ptr<Score> make_forgetting_attention(const ForgettingAttention& settings, StageParts& parts) {
  return std::make_unique<ForgettingScore>(settings, parts);
}

}  // namespace plait
