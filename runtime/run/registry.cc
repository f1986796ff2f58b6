#include "runtime/run/registry.h"

#include <algorithm>
#include <cassert>

#include "runtime/base/error.h"

namespace plait {
namespace {

// Edit distance, to suggest the key a typing error meant.
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

void Layer::fold(State&, Index, Context&) const {}

void Registry::add(Kind kind) {
  assert(!kinds_.contains(kind.key));
  std::string key = kind.key;
  kinds_.emplace(std::move(key), std::move(kind));
}

const Kind& Registry::find(const std::string& key) const {
  const auto found = kinds_.find(key);
  if (found != kinds_.end()) return found->second;
  const auto near = std::min_element(kinds_.begin(), kinds_.end(), [&](const auto& a, const auto& b) {
    return distance(key.substr(0, 64), a.first) < distance(key.substr(0, 64), b.first);
  });
  fail("there is no layer kind '", key.substr(0, 64), "'",
       near == kinds_.end() ? std::string()
                            : cat("; did you mean '", near->first, "'? (plait kinds lists all)"));
}

}  // namespace plait
