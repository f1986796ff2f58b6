// The registered probes, one row each.
#include "tools/probe/attention_maps.h"
#include "tools/probe/degrees_of_freedom.h"
#include "tools/probe/frobenius.h"
#include "tools/probe/large_prompt_limit.h"
#include "tools/probe/peak_separation.h"
#include "tools/probe/probe.h"
#include "tools/probe/single_location_regression.h"

namespace plait::probe {
namespace {

template <class P>
std::unique_ptr<Probe> make() {
  return std::make_unique<P>();
}

constexpr Entry kProbes[] = {
    {"attention_maps", "Who looks where: attention weights per head, their entropy and distance",
     make<AttentionMaps>},
    {"single_location_regression", "Risks of softmax and other weights where one token carries the answer",
     make<SingleLocationRegression>},
    {"peak_separation", "How far one raised logit lifts its weight: exp against powers",
     make<PeakSeparation>},
    {"frobenius", "How norms of polynomial and softmax weights grow with the length", make<Frobenius>},
    {"large_prompt_limit", "Softmax over many tokens against its linear limit; heads against theirs",
     make<LargePromptLimit>},
    {"degrees_of_freedom", "How many random features each attention needs", make<DegreesOfFreedom>},
};

}  // namespace

std::span<const Entry> probes() { return kProbes; }

}  // namespace plait::probe
