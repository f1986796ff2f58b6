#include "tools/ablate/remembrance.h"

#include <algorithm>
#include <array>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

bool hides_keys(const Layer& layer) {
  const auto sites = layer.sites();
  return std::any_of(sites.begin(), sites.end(), [](const SiteSpec& spec) {
    return spec.site == Site::sinks &&
           std::find(spec.operators.begin(), spec.operators.end(), Operator::mask) != spec.operators.end();
  });
}

}  // namespace

EditList forget_before(const Model& model, Index at) {
  EditList edits;
  for (int n = 0; n < model.node_count(); ++n) {
    if (model.layer(n).fields().empty()) continue;
    Edit edit;
    edit.node = model.graph().nodes[static_cast<std::size_t>(n)].name;
    edit.begin = at;
    if (hides_keys(model.layer(n))) {
      edit.site = Site::sinks;
      edit.op = Operator::mask;
      edit.value = static_cast<double>(at);
    } else {
      edit.site = Site::state;
      edit.op = Operator::reset;
      edit.reset_conv = true;
    }
    edits.push_back(edit);
  }
  if (edits.empty()) fail("the model '", model.card().name, "' has no layer that remembers anything");
  return edits;
}

std::string history_bin(Index tokens) {
  constexpr std::array<Index, 7> edges = {16, 64, 256, 1024, 4096, 16384, 65536};
  Index low = 1;
  for (const Index edge : edges) {
    if (tokens < edge) return cat("history ", low, "-", edge - 1);
    low = edge;
  }
  return cat("history ", low, "-");
}

}  // namespace plait::ablate
