// The names of the interventions (ablation-and-streaming.md section 7), and the places of a model each acts
// on.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tools/ablate/components.h"
#include "tools/ablate/conditions.h"

namespace plait::ablate {

enum class Level { layer, mixer, branch, mlp, inner };  // what an edit of that name is put on

// What `at: t` stands for as a range of tokens.
enum class At { none, from, after, only };  // refused; [t, end); [t + 1, end); [t, t + 1)

struct Alias {
  std::string name;  // "state.reset": a site and an operator as specs write them
  Level level;
  std::string site, op;  // of the canonical vocabulary (runtime/run/edit.h)
  At at = At::none;
  std::string needs;  // a key that an edit of this name must have; empty = none
  std::string summary;
  // Whether a part under this edit at full strength does nothing the rest of the model depends on, so that it
  // could be left out.
  bool removes() const;
};

std::span<const Alias> aliases();
// `name` as in the table, or any site and operator of the canonical vocabulary ("window.set"); "mixer",
// "mlp", "branch" alone mean zero, "layer" means skip. Throws Error listing what there is.
Alias find_alias(const std::string& name);
const char* name_of(Level level);

// An operator with its settings: the keys of an edit's JSON other than `where` and `operator`.
struct Operation {
  Alias alias;
  Json options = Json::object();
};
// Throws Error when the alias needs a key that the options lack, or when a key or value is none of an edit or
// says what the alias says. Without value, values and reference decay.const, write.const, gate.mean and
// head.mean get the mean over the study's reference, head.resample draws from it, and norm.freeze takes the
// scales of the baseline.
Edit edit_at(const Operation& operation, const std::string& place);

inline constexpr const char* kReference = "reference";  // the name of a study's own reference in its edits
// Whether the edit reads a recording of outputs, of inner sites or of a state, and takes the study's if it names none.
bool reads_reference(const Edit& edit);
// Whether the edit reads the baseline on the same tokens, which only stands beside it in a sweep.
bool reads_baseline(const Edit& edit);

// Where an operation can act: each place once, in the order of the blocks.
struct Pool {
  Operation operation;
  std::vector<Component> places;
  std::vector<Edit> edits;  // of each place
  int blocks = 0;
  bool crowded() const;          // some block has several places
  std::string tag(int i) const;  // short and unique in the pool: "3", or "3.ssm" where blocks have several
};
// by_kind: the mixers of parallel blocks are taken apart into their branches, so that each place has one
// kind.
enum class Grain { whole, by_kind };
Pool pool_of(const Model& model, const Components& components, const Operation& operation, Grain grain);

// The places of one kind (empty = of any): by their own kinds, or for MLPs also by those of the block's
// mixers.
std::vector<int> places_of_kind(const Pool& pool, const Components& components, const std::string& kind);
std::vector<std::string> kinds_of(const Pool& pool);  // each place's kinds joined by '+', each once, sorted

// The operation at the chosen places: everything of a condition but id, label, design and what it matches.
Condition condition_at(const Pool& pool, std::span<const int> chosen);

// A condition and the set it is of a pool; controls are drawn from the rest of it. The pool is null where a
// condition is no such set.
struct Planned {
  Condition condition;
  std::shared_ptr<const Pool> pool;
  std::vector<int> members;  // ascending
};

}  // namespace plait::ablate
