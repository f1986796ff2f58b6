// A sliding window with sinks over any model, as an intervention.
#pragma once

#include "runtime/run/edit.h"
#include "runtime/run/model.h"

namespace plait {

// The edits under which every layer that keeps rows of all tokens sees the latest `window` keys and the first
// `sinks` only. Positions stay absolute and recurrent states go on, so this is not StreamingLLM's
// re-indexing. Layers with a window of their own keep the shorter of both. Throws Error naming a layer
// whose state grows with the text and that takes no window.
EditList window_edits(const Model& model, Index window, Index sinks);

}  // namespace plait
