#include "layers/attention/stages.h"

#include <limits>
#include <utility>

namespace plait {
namespace {

struct MakeScore {
  StageParts& parts;
  std::unique_ptr<Score> operator()(const ScaledDot& o) const { return make_scaled_dot(o.scale); }
  // Disjoint slices of q and k: the average of their logits is one product with its own scale.
  std::unique_ptr<Score> operator()(const IntegralAttention& o) const { return make_scaled_dot(o.scale); }
  std::unique_ptr<Score> operator()(const MlrAttention& o) const { return make_mlr_attention(o); }
  // Their factors stand on the channels of the queries.
  std::unique_ptr<Score> operator()(const BilinearMlr&) const { return make_scaled_dot(1); }
  std::unique_ptr<Score> operator()(const BilinearBtt&) const { return make_scaled_dot(1); }
  std::unique_ptr<Score> operator()(const ScalableSoftmax& o) const {
    return make_scalable_softmax(o, parts);
  }
  std::unique_ptr<Score> operator()(const FocalAttention& o) const { return make_focal_attention(o, parts); }
  std::unique_ptr<Score> operator()(const ScaledSignedAveraging& o) const {
    return make_scaled_signed_averaging(o);
  }
  std::unique_ptr<Score> operator()(const SinSoftmax& o) const { return make_sin_softmax(o); }
  std::unique_ptr<Score> operator()(const RowStandardise& o) const { return make_row_standardise(o, parts); }
  std::unique_ptr<Score> operator()(const LogitSoftcap& o) const { return make_logit_softcap(o); }
  std::unique_ptr<Score> operator()(const Alibi& o) const { return make_alibi(o); }
  std::unique_ptr<Score> operator()(const ForgettingAttention& o) const {
    return make_forgetting_attention(o, parts);
  }
};

struct MakeNormaliser {
  StageParts& parts;
  std::unique_ptr<Normaliser> operator()(const Softmax& o) const { return make_softmax(o, parts); }
  std::unique_ptr<Normaliser> operator()(const Softermax& o) const { return make_softermax(o); }
  std::unique_ptr<Normaliser> operator()(const CogAttention&) const { return make_cog_attention(); }
  std::unique_ptr<Normaliser> operator()(const SigmoidAttention& o) const {
    return make_sigmoid_attention(o);
  }
  std::unique_ptr<Normaliser> operator()(const PeriodicSoftmax& o) const { return make_periodic_softmax(o); }
  std::unique_ptr<Normaliser> operator()(const TaylorSoftmax& o) const { return make_taylor_softmax(o); }
  std::unique_ptr<Normaliser> operator()(const StickBreaking&) const { return make_stick_breaking(); }
  std::unique_ptr<Normaliser> operator()(const LocationWeights& o) const { return make_location_weights(o); }
};

struct MakeReadout {
  StageParts& parts;
  std::optional<Index> masses;
  std::unique_ptr<Readout> operator()(const MeanReadout&) const { return make_mean(); }
  std::unique_ptr<Readout> operator()(const SelfAdjustSoftmax& o) const {
    return make_self_adjust_softmax(o);
  }
  std::unique_ptr<Readout> operator()(const DifferentialAttention&) const { return make_mean(); }
  std::unique_ptr<Readout> operator()(const ParallaxAttention&) const { return make_parallax_attention(); }
  std::unique_ptr<Readout> operator()(const LaserAttention&) const { return make_laser_attention(*masses); }
  std::unique_ptr<Readout> operator()(const BayesSoftmax&) const { return make_mean_and_log_mass(); }
  std::unique_ptr<Readout> operator()(const AffineScaledAttention& o) const {
    return make_affine_scaled_attention(o, parts);
  }
};

}  // namespace

Index StageParts::add(Field field) {
  fields.push_back(std::move(field));
  return static_cast<Index>(fields.size()) - 1;
}

Field StageParts::log(const std::string& name, Index width, DType dtype, Field::Order order) const {
  Field field;
  field.name = name;
  field.kind = Field::Kind::log;
  field.shape = {width};
  field.dtype = dtype;
  field.order = order;
  if (settings.causal) field.window = settings.window, field.sinks = settings.sinks;
  return field;
}

float Normaliser::shrink(float before, float after, const Kernels& k) const {
  float factor = 0;
  k.exp_minus(&before, after, &factor, 1);
  return factor;
}

float log_mass(const RowSums& sums, const Kernels& k) {
  if (sums.mass == 0) return -std::numeric_limits<float>::infinity();
  float log = 0;
  k.log(&sums.mass, &log, 1);
  return sums.maximum + log;
}

StagedRule::StagedRule(StageParts& parts) {
  for (const ScoreOption& option : parts.settings.score)
    scores_.push_back(std::visit(MakeScore{parts}, option));
  listed_ = scores_.size();
  for (std::size_t i = 0; i < listed_; ++i)
    if (scores_[i]->moments()) standardised_ = i;
  const auto* stick = std::get_if<StickBreaking>(&parts.settings.normaliser);
  if (stick && !stick->attend_current) scores_.push_back(make_hidden_self());
  if (std::holds_alternative<LaserAttention>(parts.settings.readout)) {
    masses_ = parts.take_numbers(2 * parts.settings.projection.num_heads);
    scores_.push_back(make_value_maximum(parts, *masses_));
  }
  for (const auto& score : scores_) {
    if (const std::optional<Index> field = score->side_field()) side_field_ = field;
    if (const std::optional<double> furthest = score->furthest_side()) furthest_side_ = furthest;
  }
  normaliser_ = std::visit(MakeNormaliser{parts}, parts.settings.normaliser);
  readout_ = std::visit(MakeReadout{parts, masses_}, parts.settings.readout);
  numbers_ = parts.numbers;
}

void StagedRule::prepare(const RowNumbers& rows, std::span<const Segment> segments,
                         const Compute& compute) const {
  for (const auto& score : scores_) score->prepare(rows, segments, compute);
  readout_->prepare(rows, segments, compute);
}

bool StagedRule::start(const QueryRow& row, float& maximum, float& mass) const {
  return normaliser_->start(row, maximum, mass);
}

void StagedRule::apply(std::size_t scores, const QueryRow& row, Index first, Index count, const double* side,
                       float* s, const Kernels& k) const {
  for (std::size_t i = 0; i < scores; ++i) scores_[i]->apply(row, first, count, side, s, k);
}

void StagedRule::logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
                        const Kernels& k) const {
  apply(scores_.size(), row, first, count, side, s, k);
}

void StagedRule::logits_before(const QueryRow& row, Index first, Index count, const double* side, float* s,
                               const Kernels& k) const {
  apply(*standardised_, row, first, count, side, s, k);
}

void StagedRule::listed_logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
                               const Kernels& k) const {
  apply(listed_, row, first, count, side, s, k);
}

float StagedRule::reference(const float* s, float* room, Index count, const Kernels& k) const {
  return normaliser_->reference(s, room, count, k);
}

float StagedRule::shrink(float before, float after, const Kernels& k) const {
  return normaliser_->shrink(before, after, k);
}

void StagedRule::numerators(const QueryRow& row, float maximum, const float* s, float* p, Index count,
                            const Kernels& k) const {
  normaliser_->numerators(row, maximum, s, p, count, k);
}

void StagedRule::settle(const float* s, float* p, Index count, const Kernels& k) const {
  normaliser_->settle(s, p, count, k);
}

bool StagedRule::follows_maximum(Index accumulator) const {
  return normaliser_->tracks_maximum() && readout_->follows_maximum(accumulator);
}

void StagedRule::weights(Index accumulator, const float* s, const float* p, float* w, Index count,
                         const Kernels& k) const {
  readout_->weights(accumulator, s, p, w, count, k);
}

void StagedRule::finish(const QueryRow& row, const RowSums& sums, Index value_width, const Kernels& k) const {
  readout_->finish(row, sums, normaliser_->factor(row, sums.mass, k), value_width, k);
}

}  // namespace plait
