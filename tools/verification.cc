#include "tools/verification.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>

#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/kernels/kernels.h"
#include "runtime/run/batch.h"
#include "runtime/run/stream.h"
#include "tools/likelihood.h"
#include "tools/twins.h"
#include "weights/snapshot_file.h"
#include "weights/temporary_file.h"

namespace plait {

bool Verification::passed() const {
  return std::all_of(nodes.begin(), nodes.end(), [](const NodeCheck& n) { return n.passed(); }) &&
         std::all_of(checks.begin(), checks.end(), [](const EqualityCheck& c) { return c.passed; });
}

namespace {

constexpr std::array kModes = {Numerics::exact, Numerics::fast};
constexpr Index kGroups = 8;  // groups of rows whose errors are judged apart

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
  Sequence sequence(model);
  const Item item{&sequence, tokens, Want::all, Origin::given};
  RunOptions options;
  options.compute = compute;
  options.observer = [&](int node, const Ports& ports, std::span<const Segment> segments) {
    recorder.take(node, ports, segments);
  };
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

// Norm of the difference over norm of the expected rows; the largest over groups of rows, so that an error
// that grows along the sequence is not diluted by its beginning. NaN counts as infinite.
double group_error(std::span<const double> expected, std::span<const double> found, Index rows) {
  const Index width = static_cast<Index>(expected.size()) / rows;
  const Index step = ceil_div(rows, std::min(rows, kGroups));
  double worst = 0;
  for (Index first = 0; first < rows; first += step) {
    double difference = 0, norm = 0;
    for (Index i = first * width; i < std::min(first + step, rows) * width; ++i) {
      difference += (found[at(i)] - expected[at(i)]) * (found[at(i)] - expected[at(i)]);
      norm += expected[at(i)] * expected[at(i)];
    }
    const double error = difference == 0 ? 0 : std::sqrt(difference / norm);
    worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
  }
  return worst;
}

bool has_narrow_matrix(const Model& model, int node) {
  for (const auto& [name, tensor] : model.parameters(node).all())
    if (tensor.dtype == DType::bf16) return true;
  return false;
}

// The longest sum behind an output: a row of a weight, or a walk over the tokens of a layer with state.
Index longest_reduction(const Model& model, int node, Index tokens) {
  Index longest = 1;
  for (const Index width : model.layer(node).signature().inputs) longest = std::max(longest, width);
  for (const auto& [name, tensor] : model.parameters(node).all())
    longest = std::max(longest, tensor.shape.back());
  return model.layer(node).fields().empty() ? longest : std::max(longest, tokens);
}

// Rounding errors of a chain of n operations add up like sqrt(n) steps of eps; the kind's page derives the
// factor in front, which covers the stages of its formula.
double exact_bound(const Model& model, int node, Index tokens) {
  const double eps = std::numeric_limits<float>::epsilon();
  return model.kind(node).bound_factor * eps *
         std::sqrt(static_cast<double>(longest_reduction(model, node, tokens)));
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

// A file name nobody else uses, removed with this object and when the program is interrupted.
TemporaryFile scratch_file() {
  return TemporaryFile(
      (std::filesystem::temp_directory_path() / cat("plait-verify-", ::getpid(), ".h5")).string());
}

class Equalities {
 public:
  Equalities(std::shared_ptr<const Model> model, std::span<const Token> tokens, const Compute& compute,
             const VerifyOptions& options, Verification& result)
      : model_(std::move(model)), tokens_(tokens), compute_(compute), options_(options), result_(result) {
    Stream stream = open();
    whole_ = logits(stream, tokens_, Split());
    state_ = stream.state_digest();
  }

  void run() {
    for (const char* pattern : {"1", "7,64,1", "33,31", "64,1,300"}) split(pattern);
    for (const int threads : {1, 2, 3}) same_thread_count(threads);
    packing();
    fork();
    rollback(Depth::declared);
    rollback(Depth::none);
    save_and_load();
    dropped_edit();
    if (compute_.numerics == Numerics::exact)
      for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
        if (machine_has(isa)) instruction_set(isa);
  }

 private:
  enum class Depth { declared, none };

  Index count() const { return static_cast<Index>(tokens_.size()); }
  Index vocab() const { return model_->card().vocab; }
  std::span<const Token> first(Index n) const { return tokens_.first(at(n)); }
  std::span<const Token> from(Index n) const { return tokens_.subspan(at(n)); }

  Stream open(Index depth = 0) const {
    StreamOptions options;
    options.compute = compute_;
    options.rollback_depth = depth;
    return Stream(model_, options);
  }

  std::vector<float> logits(Stream& stream, std::span<const Token> tokens, const Split& split) const {
    std::vector<float> rows;
    rows.reserve(tokens.size() * at(vocab()));
    for (std::size_t done = 0, feed = 0; done < tokens.size(); ++feed) {
      const auto n = at(split.size(feed, static_cast<Index>(tokens.size() - done)));
      stream.feed(tokens.subspan(done, n), [&](Index, std::span<const float> row) {
        rows.insert(rows.end(), row.begin(), row.end());
      });
      done += n;
    }
    return rows;
  }

  // Compares rows from position `begin` on with those of the undisturbed stream.
  void compare(const std::string& name, Index begin, std::span<const float> rows, const std::string& state,
               std::string detail) {
    const auto expected = std::span<const float>(whole_).subspan(at(begin * vocab()));
    bool passed = rows.size() == expected.size();
    if (!passed) detail = cat(rows.size() / at(vocab()), " rows instead of ", expected.size() / at(vocab()));
    for (std::size_t r = 0; passed && r < rows.size(); r += at(vocab()))
      if (std::memcmp(rows.data() + r, expected.data() + r, at(vocab()) * sizeof(float)) != 0) {
        passed = false;
        detail = cat("the logits after token ", begin + static_cast<Index>(r) / vocab(), " differ");
      }
    if (passed && !state.empty() && state != state_) {
      passed = false;
      detail = "the logits are equal, but the final states differ";
    }
    result_.checks.push_back({name, compute_.numerics, passed, detail});
    report(options_, 0, cat(name_of(compute_.numerics), ", ", name));
  }

  void split(const char* pattern) {
    Stream stream = open();
    const auto rows = logits(stream, tokens_, Split(pattern));
    compare(cat("split ", pattern), 0, rows, stream.state_digest(), cat(count(), " rows of logits, state"));
  }

  void with(const std::string& name, const StreamOptions& options) {
    Stream stream(model_, options);
    const auto rows = logits(stream, tokens_, Split());
    compare(name, 0, rows, stream.state_digest(), cat(count(), " rows of logits, state"));
  }

  void same_thread_count(int threads) {
    if (threads == compute_.threads) return;
    StreamOptions options;
    options.compute = compute_;
    options.compute.threads = threads;
    with(cat("threads ", threads), options);
  }

  void instruction_set(Isa isa) {
    if (isa == compute_.isa) return;
    StreamOptions options;
    options.compute = compute_;
    options.compute.isa = isa;
    with(cat("instruction set ", name_of(isa)), options);
  }

  // The sequence between two others that are at other positions and bring other numbers of rows.
  void packing() {
    const std::vector<Token> reversed(tokens_.rbegin(), tokens_.rend());
    Stream before = open(), stream = open(), after = open();
    before.feed(std::span<const Token>(reversed).first(at(count() / 3)));
    std::vector<float> rows;
    const auto next = [](Stream& s, std::span<const Token> text, Index n) {
      return text.subspan(at(s.sequence().position))
          .first(std::min(at(n), text.size() - at(s.sequence().position)));
    };
    for (Index step = 0; stream.sequence().position < count(); ++step) {
      const std::array<Index, 3> sizes = {3 + step % 5, 1 + 37 * (step % 2), 11};
      const std::array<Item, 3> items = {
          Item{&before.sequence(), next(before, reversed, sizes[0]), Want::none, Origin::given},
          Item{&stream.sequence(), next(stream, tokens_, sizes[1]), Want::all, Origin::given},
          Item{&after.sequence(), next(after, tokens_, sizes[2]), Want::last, Origin::given}};
      run_batch(*model_, items, {compute_, 29, {}}, [&](std::size_t item, Index, std::span<const float> row) {
        if (item == 1) rows.insert(rows.end(), row.begin(), row.end());
      });
    }
    compare("packing", 0, rows, stream.state_digest(), "three sequences in one batch, ragged");
  }

  void fork() {
    const Index cut = count() / 2;
    Stream stream = open();
    stream.feed(first(cut));
    Stream other = stream.fork();
    const std::vector<Token> reversed(tokens_.rbegin(), tokens_.rend());
    other.feed(std::span<const Token>(reversed).first(at(count() - cut)));  // must not touch the original
    Stream second = stream.fork();
    auto rows = logits(second, from(cut), Split("7,64,1"));
    compare("fork", cut, rows, second.state_digest(), cat("at token ", cut));
    rows = logits(stream, from(cut), Split());
    compare("original of a fork", cut, rows, stream.state_digest(), cat("at token ", cut));
  }

  void rollback(Depth depth) {
    const Index back = std::min<Index>(count() / 3, depth == Depth::declared ? 40 : count());
    const Index cut = count() - back;
    Stream stream = open(depth == Depth::declared ? back : 0);
    stream.feed(tokens_);
    const Index replayed = stream.can_rollback(back).replayed;
    stream.rollback(back);
    const auto rows = logits(stream, from(cut), Split("1"));
    const bool free = depth == Depth::none || replayed == 0;
    compare(depth == Depth::declared ? "rollback within the depth" : "rollback beyond the depth", cut,
            free ? std::span<const float>(rows) : std::span<const float>(), stream.state_digest(),
            cat(back, " tokens, ", replayed, " replayed"));
  }

  void save_and_load() {
    const Index cut = count() / 2 + 1;
    const TemporaryFile file = scratch_file();
    Stream stream = open();
    stream.feed(first(cut));
    save_snapshot(file.path(), stream.snapshot());
    StreamOptions options;
    options.compute = compute_;
    Stream loaded = Stream::restore(model_, load_snapshot(file.path()), options);
    const auto rows = logits(loaded, from(cut), Split("64,1,300"));
    compare("save and load", cut, rows, loaded.state_digest(), cat("at token ", cut));
  }

  void dropped_edit() {
    StreamOptions options;
    options.compute = compute_;
    Edit edit;
    edit.node =
        model_->graph().groups.empty() ? model_->graph().nodes.back().name : model_->graph().groups[0].name;
    edit.strength = 0;
    options.edits = {edit};
    with("edit of strength 0", options);
  }

  std::shared_ptr<const Model> model_;
  std::span<const Token> tokens_;
  Compute compute_;
  const VerifyOptions& options_;
  Verification& result_;
  std::vector<float> whole_;
  std::string state_;
};

}  // namespace

void check_equalities(const std::shared_ptr<const Model>& model, std::span<const Token> tokens,
                      const VerifyOptions& options, Verification& result) {
  for (const Numerics mode : kModes)
    Equalities(model, tokens, {mode, resolve_isa(Isa::automatic), options.threads}, options, result).run();
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
