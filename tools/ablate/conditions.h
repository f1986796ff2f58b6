// A condition: the model under one list of edits.
#pragma once

#include <string>
#include <vector>

#include "runtime/run/edit.h"

namespace plait::ablate {

struct Condition {
  std::string id, label;
  EditList edits;  // empty = baseline
  std::string
      design;  // single group third window cumulative leave_in pair shapley random dose, baseline, spec
  // Registry keys of the mixers it touches, "mlp", "layer", joined by '+'.
  std::string component_type;
  std::string site, op;     // "mixer.zero": site "mixer", op "zero"
  std::vector<int> layers;  // block indices, ascending
  std::vector<Index> heads;
  std::string phase = "always";
  double alpha = 1;
  // What a model without the touched parts would save; 0 for edits that leave their part in use.
  Index n_layers_removed = 0, params_removed = 0, state_bytes_removed = 0,
        kv_bytes_removed = 0;        // kv: per token
  std::string match_of, match_kind;  // random: the target's id; count, params, depth
  int draw = -1;
  bool operator==(const Condition&) const = default;
};

Json to_json(const EditList& edits);
Json to_json(const Condition& condition);
Condition parse_condition(const Json& json);  // what to_json wrote; throws Error naming the key

// conditions.csv (RFC 4180, lines end in \n): the header, and one row.
std::string condition_header();
std::string csv_row(const Condition& condition);
// One line of cells, quoted where they need it.
std::string csv_line(const std::vector<std::string>& cells);
// The shortest text that reads back as the same double.
std::string shortest(double value);

}  // namespace plait::ablate
