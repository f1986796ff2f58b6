// Effective remembrance (arXiv 2507.02782): how far the next token's distribution moves when everything
// before a position is forgotten, by how much history is left.
#pragma once

#include <string>

#include "runtime/run/edit.h"
#include "runtime/run/model.h"

namespace plait::ablate {

// The edits under which rows from `at` on see nothing of what came before: recurrent states start anew with
// their convolutions, attention hides the keys.
EditList forget_before(const Model& model, Index at);

// Names of the bins of history: "history 1-15", "history 16-63", ...
std::string history_bin(Index tokens);

}  // namespace plait::ablate
