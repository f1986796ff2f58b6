#include "runtime/run/encoder.h"

#include "runtime/base/error.h"
#include "runtime/base/parallel.h"

namespace plait {
namespace {

// One walk over the nodes. A state lives as long as its node runs: what a layer keeps of a sequence, keys for
// instance, is used while all of its rows are there.
void run_walk(const Model& model, std::span<const std::span<const Token>> sequences, std::size_t first,
              Walk& walk, Workspace& workspace, const EncoderSink& sink, const EditPlan* plan) {
  std::vector<Slice> slices;
  std::vector<Token> tokens;
  for (const auto& sequence : sequences) {
    slices.push_back(
        {plan, nullptr, 0, static_cast<Index>(tokens.size()), static_cast<Index>(sequence.size())});
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  }
  const auto rows = static_cast<Index>(tokens.size());
  View<float> output;
  for (int n = 0; n < model.node_count(); ++n) {
    std::vector<State> states(slices.size(), State(model.layer(n).fields()));
    for (std::size_t i = 0; i < slices.size(); ++i) slices[i].state = &states[i];
    output = workspace.open(n, rows);
    const auto inputs = workspace.inputs(n);
    walk.run_node(n, slices, {inputs, output, tokens});
    if (n < model.graph().output()) workspace.close(n);
  }
  for (std::size_t i = 0; i < slices.size(); ++i)
    sink(first + i, output.slice_rows(slices[i].first_row, slices[i].rows));
  workspace.close(model.graph().output());
}

}  // namespace

void encode_batch(const Model& model, std::span<const std::span<const Token>> sequences,
                  const RunOptions& options, const EncoderSink& sink, const EditPlan* plan) {
  if (model.card().causal)
    fail("model '", model.card().name,
         "' is causal, and encode runs encoders (\"causal\": false) only; a stream runs it");
  for (const auto& sequence : sequences) check_tokens(model, sequence);
  const FloatEnvironment environment;
  Walk walk(model, options.compute, options.observer, options.watches);
  Workspace workspace(model);
  for (std::size_t first = 0; first < sequences.size();) {
    std::size_t end = first + 1, rows = sequences[first].size();
    while (end < sequences.size() &&
           rows + sequences[end].size() <= static_cast<std::size_t>(options.row_block))
      rows += sequences[end++].size();
    run_walk(model, sequences.subspan(first, end - first), first, walk, workspace, sink, plan);
    first = end;
  }
}

std::vector<float> encode(const Model& model, std::span<const Token> tokens, const Compute& compute,
                          const EditList& edits) {
  std::vector<float> all;
  const EditPlan plan(model, edits);
  RunOptions options;
  options.compute = compute;
  const auto keep = [&](std::size_t, View<const float> output) {
    all.assign(output.data, output.data + output.rows * output.cols);
  };
  encode_batch(model, {&tokens, 1}, options, keep, &plan);
  return all;
}

}  // namespace plait
