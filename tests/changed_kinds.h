// Engines with a known mistake: a check that cannot fail would be worth nothing.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "runtime/run/registry.h"

namespace plait::testing {

// The kinds of plait, one of them changed.
Registry with(const std::string& key, const std::function<void(Kind&)>& change);

// The kinds of plait; after a layer of one kind has run, something happens to its rows.
using Afterwards = std::function<void(const Ports& ports, std::span<const Segment> segments)>;
Registry with_afterwards(const std::string& key, const Afterwards& afterwards);

// Mistakes.

// In the last bit the rows show whether they came more than one at a time.
void mind_row_counts(const Ports& ports, std::span<const Segment> segments);
// In the last bit the rows show whether other sequences were there.
void mind_company(const Ports& ports, std::span<const Segment> segments);

}  // namespace plait::testing
