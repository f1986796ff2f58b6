// Finds a mechanism that is no layer kind of its own but an option of some: laser_attention is a readout of
// softmax_attention. Everything is read from what the kinds say of themselves.
#pragma once

#include <string>
#include <vector>

#include "tools/describe.h"

namespace plait {

struct FoundOption {
  std::vector<const Kind*> kinds;  // that have it in the same form
  std::string card;                // how a card says it: "readout": "laser_attention"
  std::vector<Option> settings;    // the option and what is set with it
  Json example;  // settings of the first kind that use it; null if none of its examples does
};

// Settings called `key` and choices called `key`; if there are none, choices whose option's help ends with
// "; CHOICE: key".
std::vector<FoundOption> find_options(const std::string& key);

// Every key that find_options finds something for.
std::vector<std::string> option_keys();

}  // namespace plait
