#include "layers/attention/stages.h"

#include <cassert>
#include <map>

namespace plait {
namespace {

template <class Stage>
using Factory = std::unique_ptr<Stage> (*)(const SoftmaxAttentionSettings&, const Parameters&);

// The options by name. The settings' reader has refused every other name already.
const std::map<std::string, Factory<Score>> kScores = {{"scaled_dot", make_scaled_dot}};
const std::map<std::string, Factory<Readout>> kReadouts = {{"mean", make_mean}};

}  // namespace

StagedRule::StagedRule(const SoftmaxAttentionSettings& settings, const Parameters& parameters)
    : normaliser_(make_softmax(settings, parameters)),
      readout_(kReadouts.at(settings.readout)(settings, parameters)) {
  for (const std::string& name : settings.score) scores_.push_back(kScores.at(name)(settings, parameters));
  assert(!scores_.empty());
}

bool StagedRule::start(const QueryRow& row, float& maximum, float& mass) const {
  return normaliser_->start(row, maximum, mass);
}

void StagedRule::logits(const QueryRow& row, Index first, Index count, const double* side, float* s,
                        const Kernels& k) const {
  for (const auto& score : scores_) score->apply(row, first, count, side, s, k);
}

void StagedRule::numerators(float maximum, const float* s, float* p, Index count, const Kernels& k) const {
  normaliser_->numerators(maximum, s, p, count, k);
}

bool StagedRule::follows_maximum(Index accumulator) const {
  return normaliser_->tracks_maximum() && readout_->follows_maximum(accumulator);
}

void StagedRule::weights(Index accumulator, const float* s, const float* p, float* w, Index count,
                         const Kernels& k) const {
  readout_->weights(accumulator, s, p, w, count, k);
}

void StagedRule::finish(const QueryRow& row, float maximum, float mass, const float* accumulators,
                        Index value_width, const Kernels& k) const {
  readout_->finish(row, maximum, mass, accumulators, value_width, k);
}

}  // namespace plait
