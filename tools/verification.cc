#include "tools/verification.h"

#include <algorithm>
#include <array>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/batch.h"
#include "runtime/run/encoder.h"
#include "runtime/run/stream.h"
#include "tools/equalities.h"
#include "tools/twins.h"

namespace plait {

bool Verification::passed() const {
  return std::all_of(nodes.begin(), nodes.end(), [](const NodeCheck& n) { return n.passed(); }) &&
         std::all_of(checks.begin(), checks.end(), [](const EqualityCheck& c) { return c.passed; });
}

namespace {

constexpr std::array kModes = {Numerics::exact, Numerics::fast};

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

void report(const VerifyOptions& options, double fraction, const std::string& what) {
  if (options.progress) options.progress(fraction, what);
}

// The fast engine's own numbers.

// Outputs of every node for every token, [tokens, width] each; a node's inputs are the outputs of its input
// nodes.
struct RunOutputs {
  std::vector<std::vector<float>> outputs;
  std::string wiring;  // the first node whose ports did not hold its inputs' outputs; empty if none

  View<const float> of(const Model& model, int node) const {
    const auto& values = outputs[at(node)];
    return {values.data(), static_cast<Index>(values.size()) / model.width(node), model.width(node)};
  }
};

class Recorder {
 public:
  Recorder(const Model& model, Index tokens) : model_(model) {
    for (int n = 0; n < model.node_count(); ++n)
      recording_.outputs.emplace_back(at(tokens * model.width(n)), std::numeric_limits<float>::quiet_NaN());
  }

  void take(int node, const Ports& ports, std::span<const Segment> segments) {
    const auto& inputs = model_.graph().nodes[at(node)].inputs;
    for (const Segment& s : segments)
      for (Index r = 0; r < s.rows; ++r) {
        copy_row(ports.output, s.first_row + r, node, s.position + r);
        for (std::size_t i = 0; i < inputs.size(); ++i)
          if (!same_row(ports.inputs[i], s.first_row + r, inputs[i], s.position + r) &&
              recording_.wiring.empty())
            recording_.wiring = model_.graph().nodes[at(node)].name;
      }
  }

  RunOutputs finish() { return std::move(recording_); }

 private:
  float* row(int node, Index position) {
    return recording_.outputs[at(node)].data() + position * model_.width(node);
  }
  void copy_row(View<float> from, Index r, int node, Index position) {
    std::copy_n(from.row(r), from.cols, row(node, position));
  }
  bool same_row(View<const float> from, Index r, int node, Index position) {
    return std::memcmp(from.row(r), row(node, position), at(from.cols) * sizeof(float)) == 0;
  }

  const Model& model_;
  RunOutputs recording_;
};

RunOutputs run_outputs(const Model& model, std::span<const Token> tokens, const Compute& compute) {
  Recorder recorder(model, static_cast<Index>(tokens.size()));
  RunOptions options;
  options.compute = compute;
  options.observer = [&](int node, const Ports& ports, std::span<const Segment> segments) {
    recorder.take(node, ports, segments);
  };
  if (!model.card().causal) {
    encode_batch(model, {&tokens, 1}, options, [](std::size_t, View<const float>) {});
    return recorder.finish();
  }
  Sequence sequence(model);
  const Item item{&sequence, tokens, Want::all, Origin::given};
  run_batch(model, {&item, 1}, options, {});
  return recorder.finish();
}

// Twins.

Matrix widened(View<const float> rows) {
  Matrix values(at(rows.rows * rows.cols));
  for (Index r = 0; r < rows.rows; ++r) std::copy_n(rows.row(r), rows.cols, values.begin() + r * rows.cols);
  return values;
}

void round_to_bf16(Matrix& values) {
  for (double& v : values) v = to_float(to_bf16(static_cast<float>(v)));
}

bool has_narrow_matrix(const Model& model, int node) {
  for (const auto& [name, tensor] : model.parameters(node).all())
    if (tensor.dtype == DType::bf16) return true;
  return false;
}

// With fast numerics a product's activations are rounded to bf16, whose unit roundoff is u = 2^-8. What this
// does to the node's input is measured in double: `moved` is how far the twin's output moves when its input
// is rounded so. Activations rounded inside the node (before its output projection) move the output by about
// u. Twice the sum bounds both: the roundings are the same ones, the factor covers what a later stage makes
// of the inner ones.
double fast_bound(double exact, double moved) {
  constexpr double kUnitRoundoff = 0x1p-8;
  return exact + 2 * (moved + kUnitRoundoff);
}

std::vector<Matrix> inputs_of(const Model& model, int node, const RunOutputs& outputs) {
  std::vector<Matrix> inputs;
  for (const int input : model.graph().nodes[at(node)].inputs)
    inputs.push_back(widened(outputs.of(model, input)));
  return inputs;
}

NodeCheck check_node(const Model& model, int node, const TwinNode& twin, const RunOutputs& outputs,
                     Numerics mode) {
  const Matrix found = widened(outputs.of(model, node));
  const Index rows = static_cast<Index>(found.size()) / model.width(node);
  std::vector<Matrix> inputs = inputs_of(model, node, outputs);
  const Matrix expected = twin.run(inputs);
  NodeCheck check{model.graph().nodes[at(node)].name, model.kind(node).key, mode,
                  group_error(expected, found, rows), exact_bound(model, node, rows)};
  if (mode == Numerics::fast && has_narrow_matrix(model, node) && !inputs.empty()) {
    for (Matrix& input : inputs) round_to_bf16(input);
    check.bound = fast_bound(check.bound, group_error(expected, twin.run(inputs), rows));
  }
  return check;
}

Edit dropped_edit(const Model& model) {
  Edit edit;
  const auto& groups = model.graph().groups;
  edit.node = groups.empty() ? model.graph().nodes.back().name : groups[0].name;
  edit.strength = 0;
  return edit;
}

}  // namespace

void compare_with_twins(const Model& model, std::span<const Token> tokens, const VerifyOptions& options,
                        Verification& result) {
  const auto rows = static_cast<Index>(tokens.size());
  std::vector<RunOutputs> runs;
  for (const Numerics mode : kModes) {
    runs.push_back(run_outputs(model, tokens, {mode, resolve_isa(Isa::automatic), options.threads}));
    const std::string& wiring = runs.back().wiring;
    result.checks.push_back(
        {"inputs are the outputs of the nodes the graph names", mode, wiring.empty(),
         wiring.empty() ? cat(model.node_count(), " nodes") : cat("node '", wiring, "' differs")});
  }
  TwinChain chain(model);
  for (int n = 0; n < model.node_count(); ++n) {
    report(options, static_cast<double>(n) / model.node_count(), model.graph().nodes[at(n)].name);
    const TwinNode twin(model, n, tokens);
    for (std::size_t m = 0; m < kModes.size(); ++m)
      result.nodes.push_back(check_node(model, n, twin, runs[m], kModes[m]));
    chain.run(n, twin);
  }
  const int head = model.graph().output();
  result.logit_error_exact = group_error(chain.logits(), widened(runs[0].of(model, head)), rows);
  result.logit_error_fast = group_error(chain.logits(), widened(runs[1].of(model, head)), rows);
}

// Equality of bits.

namespace {

void check_stream_equalities(const std::shared_ptr<const Model>& model, std::span<const Token> tokens,
                             const Compute& compute, const std::function<void(EqualityCheck)>& add) {
  StreamOptions how;
  how.compute = compute;
  const Equalities equal(model, tokens, how);
  for (const char* pattern : {"1", "7,64,1", "33,31", "64,1,300"}) add(equal.split(pattern));
  for (const int threads : {1, 2, 3})
    if (threads != compute.threads) add(equal.threads(threads));
  add(equal.packing());
  add(equal.fork(Equalities::Side::fork));
  add(equal.fork(Equalities::Side::original));
  add(equal.rollback(Equalities::Depth::declared));
  add(equal.rollback(Equalities::Depth::none));
  add(equal.save_and_load());
  StreamOptions dropped = how;
  dropped.edits = {dropped_edit(*model)};
  add(equal.same("edit of strength 0", Stream(model, dropped)));
  if (compute.numerics == Numerics::exact)
    for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
      if (machine_has(isa) && isa != compute.isa) add(equal.instruction_set(isa));
}

void check_encoder_equalities(const Model& model, std::span<const Token> tokens, const Compute& compute,
                              const std::function<void(EqualityCheck)>& add) {
  const EncoderEqualities equal(model, tokens, compute);
  for (const int threads : {1, 2, 3})
    if (threads != compute.threads) add(equal.threads(threads));
  add(equal.packing());
  if (compute.numerics == Numerics::exact)
    for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
      if (machine_has(isa) && isa != compute.isa) add(equal.instruction_set(isa));
}

}  // namespace

void check_equalities(const std::shared_ptr<const Model>& model, std::span<const Token> tokens,
                      const VerifyOptions& options, Verification& result) {
  for (const Numerics mode : kModes) {
    const Compute compute = {mode, resolve_isa(Isa::automatic), options.threads};
    const auto add = [&](EqualityCheck check) {
      report(options, 0, cat(name_of(mode), ", ", check.name));
      result.checks.push_back(std::move(check));
    };
    if (model->card().causal)
      check_stream_equalities(model, tokens, compute, add);
    else
      check_encoder_equalities(*model, tokens, compute, add);
  }
}

Verification verify(const std::shared_ptr<const Model>& model, std::span<const Token> tokens,
                    const VerifyOptions& options) {
  if (tokens.size() < 8) fail("verification needs a text of at least 8 tokens, this one has ", tokens.size());
  Verification result;
  compare_with_twins(*model, tokens, options, result);
  check_equalities(model, tokens, options, result);
  return result;
}

}  // namespace plait
