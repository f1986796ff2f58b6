// C9 and C10: the engine against double precision.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "layers/reference/delta_rule.h"
#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/run/recording.h"
#include "runtime/run/stream.h"
#include "tools/ablate/checking.h"
#include "tools/twins.h"

namespace plait::ablate {
namespace {

std::string scientific(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", value);
  return text;
}

std::string orders(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", std::log10(ratio));
  return text;
}

Compute exact(Compute compute) {
  compute.numerics = Numerics::exact;
  return compute;
}

// One layer's numbers beside its bounds.
struct MatrixErrors {
  std::string node;
  double engine = 0, engine_bound = 0;          // its f32 output against finish(M v)
  double recurrence = 0, recurrence_bound = 0;  // M v against the recurrence, both in double
  bool passed() const { return engine <= engine_bound && recurrence <= recurrence_bound; }
};

Matrix widened(const Recorded& recorded) { return {recorded.rows.begin(), recorded.rows.end()}; }

// x [rows, width of the input], y [rows, width of the node]: what the engine read and wrote.
MatrixErrors matrix_errors(const Model& model, int n, const reference::DeltaRuleTwin& twin, const Matrix& x,
                           const Matrix& y, Index rows) {
  const Node& node = model.graph().nodes[static_cast<std::size_t>(n)];
  const View<const double> input(x.data(), rows, model.width(node.inputs[0]));
  const reference::DeltaInputs in = twin.recurrence_inputs(input);
  const reference::Rows by_matrix = reference::effective_outputs(in);
  const reference::Rows by_recurrence =
      reference::delta_rule(in.heads, in.q, in.k, in.v, in.g ? &*in.g : nullptr, in.beta);
  Matrix expected(y.size());
  twin.finish(by_matrix, input, {expected.data(), rows, model.width(n)});
  MatrixErrors errors{node.name};
  errors.engine = group_error(expected, y, rows);
  errors.engine_bound = exact_bound(model, n, rows);
  errors.recurrence = group_error(by_recurrence.data, by_matrix.data, rows);
  errors.recurrence_bound = errors.engine_bound * 0x1p-29;  // eps of double / eps of float
  return errors;
}

std::string sentence_of(const MatrixErrors& e) {
  return cat("'", e.node, "': the outputs the engine computed in f32 are ", scientific(e.engine),
             " from those of o = M v (bound ", scientific(e.engine_bound), "), the recurrence in double ",
             scientific(e.recurrence), " from M v (bound ", scientific(e.recurrence_bound), ")");
}

}  // namespace

Check check_effective_matrix(const Subject& subject) {
  return timed("C9", "the effective matrix of a delta rule gives its output", [&]() -> Finding {
    const Model& model = *subject.model;
    const auto text = text_of(subject, short_length(model));
    const auto rows = static_cast<Index>(text.size());
    Recording recording;
    MatrixErrors worst;
    Index layers = 0;
    for (int n = 0; n < model.node_count(); ++n) {
      if (model.layer(n).fields().empty()) continue;
      const TwinNode twin(model, n, text);
      const auto* delta = dynamic_cast<const reference::DeltaRuleTwin*>(&twin.twin());
      if (!delta) continue;
      if (recording.nodes.empty())
        recording =
            record(model, std::vector<std::vector<Token>>{text}, {{}, true, -1, {}}, exact(subject.compute));
      const Node& node = model.graph().nodes[static_cast<std::size_t>(n)];
      const std::string& input = model.graph().nodes[static_cast<std::size_t>(node.inputs[0])].name;
      const MatrixErrors errors = matrix_errors(model, n, *delta, widened(*recording.nodes.at(input)),
                                                widened(*recording.nodes.at(node.name)), rows);
      if (!errors.passed()) return refute(sentence_of(errors));
      if (errors.engine >= worst.engine) worst = errors;
      ++layers;
    }
    if (layers == 0) return inapplicable("the model has no delta-rule layer");
    return pass(cat(layers, " delta-rule layers, ", rows, " tokens; the worst is ", sentence_of(worst)));
  });
}

namespace {

constexpr double kCoarse = 0x1p20;  // units in the last place of a double: 2^-32 of a value

// Every value so many units in the last place up, down or not at all. By one unit: another evaluation in
// double, of eight times the variance of one rounding.
void move_values(Matrix& values, int node, double units) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double unit = std::nextafter(std::abs(values[i]), HUGE_VAL) - std::abs(values[i]);
    const double u = uniform_draw(10, static_cast<std::uint64_t>(node), i);
    values[i] += (u < 1.0 / 3 ? -units : u > 2.0 / 3 ? units : 0) * unit;
  }
}

// Errors of the logits against the reference, and the longest sum of the model.
struct Precision {
  double engine = 0;  // in f32
  double coarse = 0;  // of a reference whose values are moved by kCoarse units after every node
  double fine = 0;    // by one unit
  Index longest = 1;

  // Roundings at the nodes' outputs take the engine's error from the fine one's by 2^29 / sqrt(8); those
  // inside, of sums of n terms, by up to sqrt(n) more. A factor of sqrt(2) to both sides is for luck.
  double least() const { return 0x1p27; }
  double most() const { return 0x1p29 * std::sqrt(static_cast<double>(longest)); }
  // The reference answers in proportion down to the last bits of a double, but for its own roundings: a
  // narrower number anywhere in it answers in steps, which the coarse movement crosses now and then.
  bool proportional() const {
    const double ratio = coarse / fine;
    return ratio >= kCoarse / std::sqrt(static_cast<double>(longest)) && ratio <= 2 * kCoarse;
  }
  bool passed() const { return engine >= least() * fine && engine <= most() * fine && proportional(); }
};

Precision precision_of(const std::shared_ptr<const Model>& model, std::span<const Token> text,
                       const Compute& compute) {
  const auto rows = static_cast<Index>(text.size());
  TwinChain reference(*model), coarse(*model), fine(*model);
  Precision precision;
  for (int n = 0; n < model->node_count(); ++n) {
    const TwinNode twin(*model, n, text);
    for (TwinChain* chain : {&reference, &coarse, &fine}) chain->run(n, twin);
    move_values(coarse.output(n), n, kCoarse);
    move_values(fine.output(n), n, 1);
    precision.longest = std::max(precision.longest, longest_reduction(*model, n, rows));
  }
  StreamOptions options;
  options.compute = compute;
  Stream stream(model, options);
  Matrix logits;
  stream.feed(
      text, [&](Index, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  precision.engine = group_error(reference.logits(), logits, rows);
  precision.coarse = group_error(reference.logits(), coarse.logits(), rows);
  precision.fine = group_error(reference.logits(), fine.logits(), rows);
  return precision;
}

}  // namespace

Check check_double_precision(const Subject& subject) {
  return timed("C10", "double precision takes the error away", [&]() -> Finding {
    const Affordable part = affordable(subject.model);
    std::vector<Token> text = text_of(subject, short_length(*part.model));
    for (Token& token : text) token = static_cast<Token>(token % part.model->card().vocab);
    const Precision p = precision_of(part.model, text, exact(subject.compute));
    const std::string numbers =
        cat("the logits' error falls from ", scientific(p.engine), " in f32 to ", scientific(p.fine),
            " in f64, by ", orders(p.engine / p.fine), " orders (rounding: ", orders(p.least()), " to ",
            orders(p.most()), "); values moved by 2^-32 move them by ", scientific(p.coarse), ", ",
            orders(p.coarse / p.fine), " orders above (", orders(kCoarse), " or little less); ", text.size(),
            " tokens of ", part.description);
    return p.passed() ? pass(numbers) : refute(numbers);
  });
}

}  // namespace plait::ablate
