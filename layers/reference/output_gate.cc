#include "layers/reference/output_gate.h"

#include <algorithm>
#include <iterator>

namespace plait {

OutputGate read_output_gate(Config& config, std::initializer_list<const char*> functions) {
  const char* const names[] = {"none", "silu", "sigmoid", "gelu_tanh"};
  const int choice = config.choice("gate", functions, "function of the output gate; sigmoid: sigmoid_gate");
  const auto name = std::find(std::begin(names), std::end(names), std::string(functions.begin()[choice]));
  OutputGate gate;
  gate.function = static_cast<OutputGate::Function>(name - std::begin(names));
  gate.bias = config.boolean_or("gate_bias", false, "bias inside that function");
  if (gate.bias && !gate.on()) config.refuse("gate_bias means nothing while gate is none");
  return gate;
}

void add_gate_tensors(const OutputGate& gate, Index columns, Index width, const std::string& text,
                      std::vector<TensorSpec>& specs) {
  if (gate.on()) specs.push_back({"gate", {columns, width}, Init::normal, "[" + text + ", width]", true});
  if (gate.bias) specs.push_back({"gate_bias", {columns}, Init::small, "[" + text + "]"});
}

void reference::apply_gate(const OutputGate& gate, const Weights& weights, View<const double> x, Rows& o) {
  if (!gate.on()) return;
  Rows z = weights.project("gate", x);
  for (Index t = 0; gate.bias && t < z.rows; ++t)
    for (Index c = 0; c < z.cols; ++c) z(t, c) += weights.at("gate_bias", c);
  using Function = OutputGate::Function;
  map(z, gate.function == Function::silu ? silu : gate.function == Function::sigmoid ? sigmoid : gelu_tanh);
  for (std::size_t i = 0; i < z.data.size(); ++i) o.data[i] *= z.data[i];
}

}  // namespace plait
