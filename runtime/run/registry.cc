#include "runtime/run/registry.h"

#include <cassert>

#include "runtime/base/error.h"
#include "runtime/base/words.h"

namespace plait {
void Layer::fold(State&, Index, Context&) const {}

void Registry::add(Kind kind) {
  assert(!kinds_.contains(kind.key));
  std::string key = kind.key;
  kinds_.emplace(std::move(key), std::move(kind));
}

const Kind& Registry::find(const std::string& key) const {
  const auto found = kinds_.find(key);
  if (found != kinds_.end()) return found->second;
  std::vector<std::string> keys;
  for (const auto& [name, kind] : kinds_) keys.push_back(name);
  fail("there is no layer kind '", key.substr(0, 64), "'",
       keys.empty() ? "" : cat("; did you mean '", nearest(key, keys), "'? (plait kinds lists all)"));
}

}  // namespace plait
