// config.json of a checkpoint: an Error or a card whose nodes want what the tensor map brings.
#include <cstdlib>

#include "runtime/base/error.h"
#include "runtime/run/model.h"
#include "weights/families/family.h"

namespace plait {
namespace {

// The tensors that readers look at to choose: all combinations of them, by bits.
std::set<std::string> names_of(unsigned bits) {
  std::set<std::string> names;
  unsigned bit = 0;
  for (const char* name : {"model.embed_tokens.weight", "model.language_model.embed_tokens.weight",
                           "lm_head.weight", "mtp.fc.weight"})
    if (bits >> bit++ & 1) names.insert(name);
  return names;
}

void read(const std::string& text, unsigned bits) {
  const std::string where = "file 'config.json'";
  const Json config = parse_config(text, where);
  const auto names = names_of(bits);
  const Family& family = find_family(config, where);
  std::vector<std::string> notes;
  SourceConfig source(config, where, notes);
  Reading reading = family.read(source, names);
  if (family.folded) family.folded(config, names);
  if (!reading.card.contains("name")) reading.card["name"] = "x";
  std::map<std::string, Index> wanted, brought;
  for (const auto& [node, specs] : Model::wanted(expand_card(reading.card, where)))
    for (const TensorSpec& spec : specs) wanted[cat(node, ".", spec.name)] = spec.shape[0];
  for (const TensorSlice& slice : reading.map.slices)
    brought[cat(slice.node, ".", slice.tensor)] += slice.rows;
  if (wanted != brought) std::abort();
}

}  // namespace
}  // namespace plait

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    plait::read(std::string(reinterpret_cast<const char*>(data) + 1, size - 1), data[0]);
  } catch (const plait::Error&) {
  }
  return 0;
}
