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

std::string decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
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
            record(model, std::vector<std::vector<Token>>{text}, {{}, true, -1}, exact(subject.compute));
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

// Every value one unit in the last place up, down or not at all: another evaluation in double, of eight times
// the variance of one rounding.
void round_anew(Matrix& values, int node) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double u = uniform_draw(10, static_cast<std::uint64_t>(node), i);
    if (u < 1.0 / 3) values[i] = std::nextafter(values[i], -HUGE_VAL);
    if (u > 2.0 / 3) values[i] = std::nextafter(values[i], HUGE_VAL);
  }
}

struct Precision {
  double f32 = 0, f64 = 0;  // errors of the logits
  Index longest = 1;        // reduction
};

Precision precision_of(const std::shared_ptr<const Model>& model, std::span<const Token> text,
                       const Compute& compute) {
  const auto rows = static_cast<Index>(text.size());
  TwinChain chain(*model), again(*model);
  Precision precision;
  for (int n = 0; n < model->node_count(); ++n) {
    const TwinNode twin(*model, n, text);
    chain.run(n, twin);
    again.run(n, twin);
    round_anew(again.output(n), n);
    precision.longest = std::max(precision.longest, longest_reduction(*model, n, rows));
  }
  StreamOptions options;
  options.compute = compute;
  Stream stream(model, options);
  Matrix logits;
  stream.feed(
      text, [&](Index, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  precision.f32 = group_error(chain.logits(), logits, rows);
  precision.f64 = group_error(chain.logits(), again.logits(), rows);
  return precision;
}

}  // namespace

Check check_double_precision(const Subject& subject) {
  return timed("C10", "double precision takes the error away", [&]() -> Finding {
    const Affordable part = affordable(subject.model);
    std::vector<Token> text = text_of(subject, short_length(*part.model));
    for (Token& token : text) token = static_cast<Token>(token % part.model->card().vocab);
    const Precision p = precision_of(part.model, text, exact(subject.compute));
    const double orders = std::log10(p.f32 / p.f64);
    const double least = std::log10(0x1p27),
                 most = std::log10(0x1p29 * std::sqrt(static_cast<double>(p.longest)));
    const std::string numbers = cat("the engine's logits in f32 are ", scientific(p.f32),
                                    " from the reference, a second evaluation in f64 ", scientific(p.f64),
                                    ": ", decimal(orders), " orders (", decimal(least), " to ", decimal(most),
                                    " are rounding), ", text.size(), " tokens of ", part.description);
    return orders >= least && orders <= most ? pass(numbers) : refute(numbers);
  });
}

}  // namespace plait::ablate
