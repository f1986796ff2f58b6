// Encoders: models whose card says "causal": false. A row of theirs may depend on the whole sequence, so that
// a sequence is run whole, from position 0, and leaves no state behind.
//
//   auto model = plait::load("encoder.h5");
//   auto outputs = plait::encode(*model, tokens);
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "runtime/run/batch.h"

namespace plait {

// output [tokens of sequences[sequence], width of the last node]; valid during the call.
using EncoderSink = std::function<void(std::size_t sequence, View<const float> output)>;

// Runs every sequence, several of them in one walk while they have no more than options.row_block rows
// together; a longer sequence has a walk of its own. Calls come in the order of the sequences. The bits of a
// sequence's output depend on its own tokens and the edits only. plan: of this model; null = no edits. Throws
// Error if the model is causal, and on a token outside the vocabulary before anything is run.
void encode_batch(const Model& model, std::span<const std::span<const Token>> sequences,
                  const RunOptions& options, const EncoderSink& sink, const EditPlan* plan = nullptr);

// One sequence: [tokens, width of the last node]. Edits cover it whole, without `tokens`, phases and states;
// Throws Error where one cannot be done.
std::vector<float> encode(const Model& model, std::span<const Token> tokens, const Compute& compute = {},
                          const EditList& edits = {});

}  // namespace plait
