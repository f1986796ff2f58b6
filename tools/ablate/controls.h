// Matched random controls: what removing other parts does, as many of them or as large or lying as deep.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tools/ablate/components.h"

namespace plait::ablate {

// count   as many places
// params  as many parameters, whatever the number of places: the set nearest to the target's that a random
//         order passes through, within `tolerance` of it where one of 64 orders does
// depth   as many places in each third of the blocks, and as many in block 0
enum class Match { count, params, depth };
const char* name_of(Match match);

inline constexpr Index kLeastDraws = 199;  // a rank of 1 in 200 is the least that can be called rare
inline constexpr Index kMostDraws = 100000;

struct Controls {
  std::vector<std::string> targets;  // ids of conditions, or designs ("group"): each of its conditions
  Index draws = 199;
  std::vector<Match> match = {Match::count, Match::params, Match::depth};
  double tolerance = 0.05;  // of the target's parameters
  bool operator==(const Controls&) const = default;
};

// Sets of places for one target and one way of matching.
struct ControlSets {
  std::vector<std::vector<int>> sets;  // ascending; by draw; equal sets may recur unless exhaustive
  // All sets that match but the target's own, because there are no more of them than draws were asked for.
  bool exhaustive = false;
  double possible = 0;   // sets that match, the target's included; 0: not counted (params of many places)
  double deviation = 0;  // params: the largest |parameters / target's - 1|
  Index outside = 0;     // params: sets outside the tolerance
  std::string note;      // why there are none
};

// target: ascending indices into places. A set depends on (seed, number of places, size of the target, way of
// matching, draw), for params also on the places' sizes, for depth on how deep the target lies: models of
// equal depth get the same sets. Random draws may hit the target itself, as the permutation rank expects.
ControlSets draw_controls(Match match, std::span<const Component> places, std::span<const int> target,
                          int blocks, const Controls& controls, std::uint64_t seed);

// `--controls` on the command line: "count:199,depth".
Controls parse_controls(const std::string& text);

}  // namespace plait::ablate
