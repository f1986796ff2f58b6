// The registered probes, one row each.
#include "tools/probe/attention_maps.h"
#include "tools/probe/probe.h"

namespace plait::probe {
namespace {

template <class P>
std::unique_ptr<Probe> make() {
  return std::make_unique<P>();
}

constexpr Entry kProbes[] = {
    {"attention_maps", "Who looks where: attention weights per head, their entropy and distance",
     make<AttentionMaps>},
};

}  // namespace

std::span<const Entry> probes() { return kProbes; }

}  // namespace plait::probe
