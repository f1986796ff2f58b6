// A study as a file says it: what is asked of a model, before there is a model.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/controls.h"
#include "tools/ablate/designs.h"
#include "tools/ablate/document.h"

namespace plait::ablate {

// One operator on some places of a site, or (named) one edit written out.
struct Part {
  std::string alias;        // "erase.off"; empty: `options` is a whole edit
  std::string kind;         // where.kind: a registry key; empty = any
  std::vector<int> layers;  // where.layers: blocks, ascending; empty = all
  Json options =
      Json::object();  // the edit's further keys; where.{heads, channels, tokens, keys} and alpha included
  bool operator==(const Part&) const = default;
};

// An entry of `conditions`. Several parts act together.
struct Request {
  std::string id, label;
  std::vector<Part> parts;
  bool operator==(const Request&) const = default;
};

// What mean, resample and their like take their values from.
struct Reference {
  std::string data;  // a text file; empty: none
  Index tokens = 65536;
  bool operator==(const Reference&) const = default;
};

struct Scoring {
  std::vector<std::string> nll;     // texts
  std::vector<Index> lengths;       // contexts; empty: 2048
  std::vector<Json> tasks;          // as tasks.h reads them, their files located
  std::vector<Index> remembrance;   // positions before which everything is forgotten (remembrance.h)
  double scored = 1;                // share of the positions whose logits are computed, (0, 1]
  std::string documents = "blank";  // line, blank, heading, jsonl:FIELD: where a text's documents end
  bool operator==(const Scoring&) const = default;
};

struct Statistics {
  std::string cluster = "document";  // or item
  Index boot = 10000;
  std::string confirmatory = "holm", sweep = "bh";  // adjustments: holm, bh, none
  bool operator==(const Statistics&) const = default;
};

// What is declared before running.
struct Declared {
  std::vector<std::string> confirmatory;  // ids; the rest is exploratory
  std::string stop_rule = "none";         // or anytime
  bool operator==(const Declared&) const = default;
};

struct Study {
  std::string name = "spec";
  std::string model;               // file; empty: named elsewhere
  std::string baseline = "exact";  // numerics: exact or fast
  Reference reference;
  std::vector<Request> conditions;
  std::vector<Design> designs;
  Controls controls;  // no targets: none are drawn
  Scoring score;
  Statistics stats;
  Declared plan;
  std::uint64_t seed = 0;
  bool operator==(const Study&) const = default;
};

// Reads a study. Relative file names are taken from `folder` (empty: as they stand). Unknown keys, wrong
// types, ids used twice, interventions that do not exist and values outside their range throw Error: a
// sentence naming file, line, key, value and what is allowed. What only a model can tell is found by plan_of.
Study parse_study(const Document& document, const std::string& folder);
// The same study again as a spec: parse_study(to_json(s)) == s.
Json to_json(const Study& study);

// A list of edits as `--edits` takes it: an edit written out ({"where": "blocks.1.mixer/decay", "operator":
// "one"}) or a part ({"site": "decay", "op": "one", "where": {"kind": "gated_delta_net"}}) per entry.
std::vector<Part> parse_parts(const Document& document);
// The edits the parts stand for in a model. Throws Error naming kind, layer or site the model lacks.
EditList edits_of(const std::vector<Part>& parts, const Model& model);

// A part's place among all places of its site. `pool` is null for an edit written out.
struct Resolved {
  std::shared_ptr<const Pool> pool;
  std::vector<int> members;
  EditList edits;
};
Resolved resolve(const Part& part, const Model& model, const Components& components);

}  // namespace plait::ablate
