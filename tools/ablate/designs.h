// Designs: from a site to the sets of places that are put out of action.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/sites.h"

namespace plait::ablate {

// One line of a plan. A family is the set of places a design works on: all places of the site, or those of
// one kind.
struct Design {
  // single    each place alone
  // group     each kind's places together
  // third     places of the first, middle and last third of the blocks
  // window    `sizes` places in a row
  // cumulative  the first n and the last n places, for n in `sizes` (empty: every n)
  // leave_in  a kind's places but one, and all of them
  // pair      every two of `among`, or of the `top` places of the single sweep once that has run
  // shapley   sets along `permutations` random orders, half of them the reverse of the other half
  // dose      each kind's places together at every strength of `alphas`
  std::string design;
  std::string site;  // an alias: "mixer.zero"
  std::string kind;  // only places of this registry key; empty: no restriction
  std::vector<Index> sizes;
  std::vector<std::string> among;  // names of places: "blocks.3.mixer"
  Index top = 0;
  Index permutations = 0;         // even
  std::vector<double> alphas;     // in (0, 1]
  Json options = Json::object();  // further keys of the edits: phase, heads, tokens, value, ...
  bool operator==(const Design&) const = default;
};

const std::vector<std::string>& design_names();

// Orders in which places are removed one after the other: the set after k steps of order i is `at[i][k]`, an
// index into the conditions (k = 0: nothing is removed).
struct Shapley {
  std::string site, kind;
  std::vector<std::string> places;
  std::vector<std::vector<int>> orders;  // indices into places
  std::vector<std::vector<int>> at;
};

struct Expansion {
  std::vector<Planned> planned;  // may hold a set several times
  std::vector<Shapley> shapley;  // `at` indexes planned, -1 = nothing removed
};

// Ids are made of design, site, kind and set, so that they are the same in every run. Places go in the order
// of the blocks. Throws Error when the model lacks the site or the kind. A pair design that waits for a sweep
// gives nothing.
Expansion expand(const Design& design, const Model& model, const Components& components, std::uint64_t seed);

// Fills in what a design leaves open: windows of 2, 3 and 4, the ten strongest for pairs, 100 permutations,
// strengths of a quarter to one.
void complete(Design& design);

// `--sweep` on the command line: "mixer.zero,mlp.zero" or "single:mixer,mlp;window:layer.skip".
std::vector<Design> parse_sweep(const std::string& text);

// The third of its model a block lies in: 0, 1, 2. Outside the blocks: 2.
int third_of(int block, int blocks);

}  // namespace plait::ablate
