// The stages of `softmax_attention` between projection and gate. An option is one small class behind one of
// these interfaces, in a file named like it; stages.cc picks them by their settings
// (layers/reference/attention_options.h). score.md, normaliser.md and readout.md describe them.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "layers/reference/softmax_attention.h"
#include "runtime/base/tensor.h"
#include "runtime/kernels/attention.h"
#include "runtime/run/layer.h"

namespace plait {

// What an option is built from, and where it asks for what it needs besides logits and values.
struct StageParts {
  const SoftmaxAttentionSettings& settings;
  const Parameters& parameters;
  std::vector<Field>& fields;  // of the layer: an option may append its own
  std::vector<SiteSpec>& sites;
  Index numbers = 0;  // columns of QueryRow::numbers taken so far

  // The first of `columns` columns for the caller.
  Index take_numbers(Index columns) { return std::exchange(numbers, numbers + columns); }
  // Appends a field, returns its number.
  Index add(Field field);
  Field log(const std::string& name, Index width, DType dtype, Field::Order order) const;
};

// What options take from the layer's input before the walk.
struct RowNumbers {
  View<const float> x;  // [rows, width]
  View<float> numbers;  // [rows, columns taken]
  View<double> sides;   // [rows, num_heads], where an option has a side column
  View<float> v;        // projected values, not cached yet: an option may change them
};

class Stage {
 public:
  virtual ~Stage() = default;
  virtual void prepare(const RowNumbers& /*rows*/, std::span<const Segment>, const Compute&) const {}
};

// score: one transform in the list that turns q.k into a logit. It sees single logits and the row's numbers
// only.
class Score : public Stage {
 public:
  // What a score must know of the whole row first: the first column of QueryRow::numbers it reads them from.
  // Column first + 2h is the mean of head h's logits before this score, first + 2h + 1 what `spread` makes of
  // the sum of their squared distances from it. They come from a walk of their own.
  virtual std::optional<Index> moments() const { return std::nullopt; }
  virtual double spread(double /*squares*/, Index /*count*/) const { return 0; }
  // In place, s [count] of consecutive keys from position `first`; side [count] is the side column or null.
  virtual void apply(const QueryRow& row, Index first, Index count, const double* side, float* s,
                     const Kernels& k) const = 0;
  // The field (f64, order columns, [num_heads]) that is the side column of the walk.
  virtual std::optional<Index> side_field() const { return std::nullopt; }
  // Keys whose side is more than this above the row's own are not seen.
  virtual std::optional<double> furthest_side() const { return std::nullopt; }
};

// normaliser: where a row starts, how a logit becomes a numerator, and what divides the sums. See KeyRule.
class Normaliser {
 public:
  virtual ~Normaliser() = default;
  virtual bool tracks_maximum() const { return false; }
  virtual bool references_add() const { return false; }
  virtual bool start(const QueryRow&, float& /*maximum*/, float& /*mass*/) const { return false; }
  virtual float reference(const float* s, float* /*room*/, Index count, const Kernels& k) const {
    return k.maximum(s, count);
  }
  virtual float shrink(float before, float after, const Kernels& k) const;
  virtual void numerators(const QueryRow& row, float maximum, const float* s, float* p, Index count,
                          const Kernels& k) const = 0;
  virtual void settle(const float* /*s*/, float* /*p*/, Index /*count*/, const Kernels&) const {}
  // What the sums are multiplied by: 1 / mass, or 0 where that is 0.
  virtual float factor(const QueryRow&, float mass, const Kernels&) const {
    return mass == 0 ? 0.0f : 1.0f / mass;
  }
};

// readout: what is gathered besides numerator times value, and what the output is made of.
class Readout : public Stage {
 public:
  virtual bool tracks_minimum() const { return false; }
  virtual bool second_logits() const { return false; }
  virtual Index accumulators() const { return 1; }
  virtual bool follows_maximum(Index /*accumulator*/) const { return true; }
  virtual void weights(Index /*accumulator*/, const float* /*s*/, const float* /*p*/, float* /*w*/,
                       Index /*count*/, const Kernels&) const {}
  // Columns of row.out for values of `width` columns.
  virtual Index out_width(Index width) const { return width; }
  // factor: the normaliser's. -> row.out [out_width(width)]
  virtual void finish(const QueryRow& row, const RowSums& sums, float factor, Index width,
                      const Kernels& k) const = 0;
};

// A factor on every logit.
std::unique_ptr<Score> make_scaled_dot(double scale);
std::unique_ptr<Score> make_mlr_attention(const MlrAttention& settings);
// What the walk takes as levels of q.k; empty unless the list of scores begins with mlr_attention.
std::vector<KeyLevel> key_levels(const ScoreOption& first);
std::unique_ptr<Score> make_scalable_softmax(const ScalableSoftmax& settings, StageParts& parts);
std::unique_ptr<Score> make_focal_attention(const FocalAttention& settings, StageParts& parts);
std::unique_ptr<Score> make_scaled_signed_averaging(const ScaledSignedAveraging& settings);
std::unique_ptr<Score> make_sin_softmax(const SinSoftmax& settings);
std::unique_ptr<Score> make_row_standardise(const RowStandardise& settings, StageParts& parts);
std::unique_ptr<Score> make_logit_softcap(const LogitSoftcap& settings);
std::unique_ptr<Score> make_alibi(const Alibi& settings);
std::unique_ptr<Score> make_forgetting_attention(const ForgettingAttention& settings, StageParts& parts);

std::unique_ptr<Normaliser> make_softmax(const Softmax& settings, StageParts& parts);
std::unique_ptr<Normaliser> make_softermax(const Softermax& settings);
std::unique_ptr<Normaliser> make_cog_attention();
std::unique_ptr<Normaliser> make_sigmoid_attention(const SigmoidAttention& settings);
std::unique_ptr<Normaliser> make_periodic_softmax(const PeriodicSoftmax& settings);
std::unique_ptr<Normaliser> make_taylor_softmax(const TaylorSoftmax& settings);
std::unique_ptr<Normaliser> make_stick_breaking();
// What stands behind the list of scores for a normaliser under which a row does not see its own key.
std::unique_ptr<Score> make_hidden_self();
std::unique_ptr<Normaliser> make_location_weights(const LocationWeights& settings);

std::unique_ptr<Readout> make_mean();
// The mean and, behind it, ln of the mass: value_head_dim + 1 columns.
std::unique_ptr<Readout> make_mean_and_log_mass();
std::unique_ptr<Readout> make_self_adjust_softmax(const SelfAdjustSoftmax& settings);
std::unique_ptr<Readout> make_affine_scaled_attention(const AffineScaledAttention& settings,
                                                      StageParts& parts);

std::unique_ptr<Readout> make_parallax_attention();
// masses: columns [2 * num_heads] of QueryRow::numbers that MassRule has filled.
std::unique_ptr<Readout> make_laser_attention(Index masses);
// What stands behind the list of scores for it: + the greatest channel of the key's value, side column of the
// keys.
std::unique_ptr<Score> make_value_maximum(StageParts& parts, Index masses);

// ln of a row's mass, -infinity for a row that saw no key; numerators relative to a maximum.
float log_mass(const RowSums& sums, const Kernels& k);

// The chosen options as one rule for the walk over the keys.
class StagedRule final : public KeyRule {
 public:
  explicit StagedRule(StageParts& parts);

  // Columns of QueryRow::numbers; the field of the side column.
  Index numbers() const { return numbers_; }
  std::optional<Index> side_field() const { return side_field_; }
  std::optional<double> furthest_side() const { return furthest_side_; }
  // Columns [2 * num_heads] of QueryRow::numbers that MassRule fills before the walk, for readouts that want
  // them.
  std::optional<Index> masses() const { return masses_; }
  void prepare(const RowNumbers& rows, std::span<const Segment> segments, const Compute& compute) const;
  // Logits as the list of scores has them, without what a normaliser or readout put behind it.
  // The score of the list that wants moments, and the logits as they stand before it.
  const Score* standardised() const { return standardised_ ? scores_[*standardised_].get() : nullptr; }
  void logits_before(const QueryRow& row, Index first, Index count, const double* side, float* s,
                     const Kernels& k) const;
  void listed_logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
                     const Kernels& k) const;

  Index out_width(Index value_width) const { return readout_->out_width(value_width); }

  bool tracks_maximum() const override { return normaliser_->tracks_maximum(); }
  bool tracks_minimum() const override { return readout_->tracks_minimum(); }
  bool second_logits() const override { return readout_->second_logits(); }
  bool references_add() const override { return normaliser_->references_add(); }
  bool start(const QueryRow& row, float& maximum, float& mass) const override;
  void logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
              const Kernels& k) const override;
  float reference(const float* s, float* room, Index count, const Kernels& k) const override;
  float shrink(float before, float after, const Kernels& k) const override;
  void numerators(const QueryRow& row, float maximum, const float* s, float* p, Index count,
                  const Kernels& k) const override;
  void settle(const float* s, float* p, Index count, const Kernels& k) const override;
  Index accumulators() const override { return readout_->accumulators(); }
  bool follows_maximum(Index accumulator) const override;
  void weights(Index accumulator, const float* s, const float* p, float* w, Index count,
               const Kernels& k) const override;
  void finish(const QueryRow& row, const RowSums& sums, Index value_width, const Kernels& k) const override;

 private:
  // The first `scores` of the scores.
  void apply(std::size_t scores, const QueryRow& row, Index first, Index count, const double* side, float* s,
             const Kernels& k) const;

  std::vector<std::unique_ptr<Score>> scores_;  // those of the list first
  std::size_t listed_ = 0;
  std::optional<std::size_t> standardised_;
  std::unique_ptr<Normaliser> normaliser_;
  std::unique_ptr<Readout> readout_;
  std::optional<Index> side_field_;
  std::optional<double> furthest_side_;
  std::optional<Index> masses_;
  Index numbers_ = 0;
};

}  // namespace plait
