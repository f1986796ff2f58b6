#include "weights/families/plait_card.h"

#include "runtime/base/error.h"
#include "runtime/run/model.h"

namespace plait {
namespace {

// Tensors have the names and shapes plait gives them.
Reading read(SourceConfig& config, const std::set<std::string>&) {
  Reading reading{config.raw("plait_card"), {}};
  if (reading.card.is_null()) fail(config.where(), " lacks the key 'plait_card'");
  const Graph graph = expand_card(reading.card, cat(config.where(), ", 'plait_card'"));
  for (const auto& [node, specs] : Model::wanted(graph))
    for (const TensorSpec& spec : specs)
      reading.map.whole(cat(node, ".", spec.name), spec.shape, node, spec.name);
  config.harmless({"model_type"});
  config.finish();
  return reading;
}

}  // namespace

Family plait_card_family() { return {"plait", {"plait"}, read, nullptr}; }

}  // namespace plait
