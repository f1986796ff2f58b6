// The registered probes, one row each.
#include "tools/probe/attention_maps.h"
#include "tools/probe/attention_sinks.h"
#include "tools/probe/attention_statistics.h"
#include "tools/probe/attention_thermodynamics.h"
#include "tools/probe/degrees_of_freedom.h"
#include "tools/probe/frobenius.h"
#include "tools/probe/large_prompt_limit.h"
#include "tools/probe/long_context.h"
#include "tools/probe/peak_separation.h"
#include "tools/probe/pooled_retrieval.h"
#include "tools/probe/probe.h"
#include "tools/probe/single_location_regression.h"
#include "tools/probe/vertex_softmax.h"

namespace plait::probe {
namespace {

template <class P>
std::unique_ptr<Probe> make() {
  return std::make_unique<P>();
}

constexpr Entry kProbes[] = {
    {"attention_maps", "Who looks where: attention weights per head, their entropy and distance",
     make<AttentionMaps>},
    {"attention_sinks", "Which key takes the mass, and whether the head then does nothing or broadcasts",
     make<AttentionSinks>},
    {"attention_statistics", "Norms and ranks of heads, distance of tokens by depth, how far gates are open",
     make<AttentionStatistics>},
    {"attention_thermodynamics",
     "Free energy, entropy and heat capacity of attention rows, over temperatures",
     make<AttentionThermodynamics>},
    {"vertex_softmax", "Certified bounds of a layer's output under logit intervals, as of a quantised cache",
     make<VertexSoftmax>},
    {"pooled_retrieval",
     "Which of two sets of embeddings find their partners; scores calibrated against measured values",
     make<PooledRetrieval>},
    {"long_context", "Loss by context length, windows against streaming, answers from ever further back",
     make<LongContext>},
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
