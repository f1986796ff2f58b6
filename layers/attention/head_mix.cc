#include "layers/attention/head_mix.h"

namespace plait {

std::unique_ptr<HeadMix> make_head_mix(const SoftmaxAttentionSettings& settings,
                                       const Parameters& parameters) {
  if (const auto* option = std::get_if<DifferentialAttention>(&settings.readout))
    return make_differential_attention(*option, settings, parameters);
  if (std::holds_alternative<BayesSoftmax>(settings.readout)) return make_bayes_softmax(settings, parameters);
  return nullptr;
}

}  // namespace plait
