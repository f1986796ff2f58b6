#include "tests/one_kind.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "runtime/base/panel.h"
#include "runtime/run/state.h"
#include "tests/testing.h"

namespace plait::testing {
namespace {

// The columns of each port, tokens left out for ports of width 0.
template <class T>
std::vector<View<const T>> views(const std::vector<std::vector<T>>& inputs, const std::vector<Index>& widths,
                                 Index first, Index rows) {
  std::vector<View<const T>> all;
  for (std::size_t i = 0; i < widths.size(); ++i)
    all.emplace_back(inputs.at(i).data() + first * widths[i], rows, widths[i]);
  return all;
}

}  // namespace

OneKind::OneKind(const std::string& kind, const Json& settings, const Surroundings& surroundings,
                 const Values& values, DType matrices)
    : kind_(&Registry::builtin().find(kind)) {
  const auto config = [&] { return std::make_unique<Config>("tested", settings, surroundings); };
  const std::vector<TensorSpec> specs = kind_->tensors(*config());
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, numbers] : values) {
    const auto spec = std::find_if(specs.begin(), specs.end(),
                                   [&name = name](const TensorSpec& s) { return s.name == name; });
    const Shape shape = spec == specs.end() ? Shape{static_cast<Index>(numbers.size())} : spec->shape;
    if (element_count(shape) != static_cast<Index>(numbers.size()))
      throw std::logic_error("tensor " + name + " has the wrong number of values");
    const Tensor rows = make_tensor(shape, numbers);
    tensors[name] = spec != specs.end() && spec->matrix ? pack(rows, matrices) : rows;
  }
  Parameters::check("tested", specs, tensors);
  const Parameters parameters(tensors);
  layer_ = kind_->make(*config(), parameters);
  twin_ = kind_->twin(*config(), parameters);
}

OneKind::Values OneKind::random_values(const std::string& kind, const Json& settings,
                                       const Surroundings& surroundings, std::uint64_t seed) {
  Config config("tested", settings, surroundings);
  Values values;
  for (const TensorSpec& spec : Registry::builtin().find(kind).tensors(config)) {
    Numbers numbers(seed + std::hash<std::string>()(spec.name));
    const double fan_in = spec.init == Init::unit_normal ? 1 : static_cast<double>(spec.shape.back());
    const double scale = spec.shape.size() > 1 ? 1 / std::sqrt(fan_in) : 0.3;
    values[spec.name] = numbers.normals(element_count(spec.shape), scale);
    if (spec.init == Init::around_one || spec.init == Init::ones)
      for (float& value : values[spec.name]) value += 1;
  }
  return values;
}

std::vector<float> OneKind::run(const KindInput& input, const KindRun& how) const {
  const Signature signature = layer_->signature();
  std::vector<float> output(static_cast<std::size_t>(input.rows * signature.output), std::nanf(""));
  State state(layer_->fields());
  Edits edits;
  for (const Edit& edit : how.edits) edits.add(&edit);
  Context context{how.compute};
  for (Index first = 0, call = 0; first < input.rows; ++call) {
    const Index most =
        how.split.empty() ? input.rows : how.split[static_cast<std::size_t>(call) % how.split.size()];
    const Index rows = std::min(most, input.rows - first);
    const auto inputs = views(input.inputs, signature.inputs, first, rows);
    Ports ports;
    ports.inputs = inputs;
    ports.output = View<float>(output.data() + first * signature.output, rows, signature.output);
    if (!input.tokens.empty())
      ports.tokens =
          std::span(input.tokens).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
    const bool has_state = !layer_->fields().empty();
    const Segment segment = {has_state ? &state : nullptr, first, 0, rows, edits.empty() ? nullptr : &edits};
    layer_->run(ports, {&segment, 1}, context);
    first += rows;
    if (has_state) state.advance(first);
  }
  return output;
}

std::vector<double> OneKind::twin(const KindInput& input) const {
  const Signature signature = layer_->signature();
  std::vector<std::vector<double>> wide;
  for (const auto& port : input.inputs) wide.push_back(widen(port));
  std::vector<double> output(static_cast<std::size_t>(input.rows * signature.output), std::nan(""));
  const auto inputs = views(wide, signature.inputs, 0, input.rows);
  twin_->run(inputs, input.tokens, View<double>(output.data(), input.rows, signature.output));
  return output;
}

KindInput random_input(Index rows, Index width, std::uint64_t seed, Index ports) {
  KindInput input;
  input.rows = rows;
  for (Index port = 0; port < ports; ++port)
    input.inputs.push_back(Numbers(seed + static_cast<std::uint64_t>(port)).normals(rows * width));
  return input;
}

std::vector<double> widen(const std::vector<float>& values) { return {values.begin(), values.end()}; }

}  // namespace plait::testing
