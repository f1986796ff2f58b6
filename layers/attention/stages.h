// The stages of `softmax_attention` between projection and gate. An option is one small class behind one of
// these interfaces, built by a factory that the table in stages.cc names; softmax_attention.md lists the
// options.
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/softmax_attention.h"
#include "runtime/base/tensor.h"
#include "runtime/kernels/attention.h"

namespace plait {

// score: one transform in the list that turns q.k into a logit. It sees single logits and the row's scalars
// only.
class Score {
 public:
  virtual ~Score() = default;
  // In place, s [count] of consecutive keys from position `first`; side [count] is the transform's side
  // column or null.
  virtual void apply(const QueryRow& row, Index first, Index count, const double* side, float* s,
                     const Kernels& k) const = 0;
};

// normaliser: where a row starts, and how a logit becomes a numerator.
class Normaliser {
 public:
  virtual ~Normaliser() = default;
  // See KeyRule.
  virtual bool tracks_maximum() const = 0;
  virtual bool start(const QueryRow& row, float& maximum, float& mass) const = 0;
  virtual void numerators(float maximum, const float* s, float* p, Index count, const Kernels& k) const = 0;
};

// readout: what is gathered besides numerator times value, and what the output is made of.
class Readout {
 public:
  virtual ~Readout() = default;
  // See KeyRule; a readout with one accumulator leaves these as they are.
  virtual Index accumulators() const { return 1; }
  virtual bool follows_maximum(Index /*accumulator*/) const { return true; }
  virtual void weights(Index /*accumulator*/, const float* /*s*/, const float* /*p*/, float* /*w*/,
                       Index /*count*/, const Kernels&) const {}
  // accumulators [accumulators()][width] -> row.out [width]
  virtual void finish(const QueryRow& row, float maximum, float mass, const float* accumulators, Index width,
                      const Kernels& k) const = 0;
};

std::unique_ptr<Score> make_scaled_dot(const SoftmaxAttentionSettings& settings,
                                       const Parameters& parameters);
std::unique_ptr<Normaliser> make_softmax(const SoftmaxAttentionSettings& settings,
                                         const Parameters& parameters);
std::unique_ptr<Readout> make_mean(const SoftmaxAttentionSettings& settings, const Parameters& parameters);

// The chosen options as one rule for the walk over the keys.
class StagedRule final : public KeyRule {
 public:
  StagedRule(const SoftmaxAttentionSettings& settings, const Parameters& parameters);

  bool tracks_maximum() const override { return normaliser_->tracks_maximum(); }
  bool start(const QueryRow& row, float& maximum, float& mass) const override;
  void logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
              const Kernels& k) const override;
  void numerators(float maximum, const float* s, float* p, Index count, const Kernels& k) const override;
  Index accumulators() const override { return readout_->accumulators(); }
  bool follows_maximum(Index accumulator) const override;
  void weights(Index accumulator, const float* s, const float* p, float* w, Index count,
               const Kernels& k) const override;
  void finish(const QueryRow& row, float maximum, float mass, const float* accumulators, Index value_width,
              const Kernels& k) const override;

 private:
  std::vector<std::unique_ptr<Score>> scores_;
  std::unique_ptr<Normaliser> normaliser_;
  std::unique_ptr<Readout> readout_;
};

}  // namespace plait
