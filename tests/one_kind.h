// One kind alone: built through the registry like a node of a model, fed like the executor feeds it, beside
// its twin.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/run/registry.h"

namespace plait::testing {

// What one sequence is fed: inputs[port] [rows, width], tokens [rows] where the kind reads them.
struct KindInput {
  Index rows = 0;
  std::vector<std::vector<float>> inputs = {};
  std::vector<Token> tokens = {};
};

struct KindRun {
  std::vector<Index> split = {};  // rows per call, repeated; empty = all in one
  Compute compute = {};
  std::vector<Edit> edits = {};  // for every row
};

class OneKind {
 public:
  // Plain rows by tensor name.
  using Values = std::map<std::string, std::vector<float>>;

  // Throws Error like a model does. Matrices are held in panels of `matrices`.
  OneKind(const std::string& kind, const Json& settings, const Surroundings& surroundings,
          const Values& values, DType matrices = DType::f32);
  // Normal numbers of a typical size for every tensor the settings want.
  static Values random_values(const std::string& kind, const Json& settings, const Surroundings& surroundings,
                              std::uint64_t seed);

  const Layer& layer() const { return *layer_; }
  const Kind& kind() const { return *kind_; }
  Index output_width() const { return layer_->signature().output; }

  // From a fresh state. [rows, output_width]
  std::vector<float> run(const KindInput& input, const KindRun& how = {}) const;
  std::vector<double> twin(const KindInput& input) const;

 private:
  const Kind* kind_;
  std::unique_ptr<Layer> layer_;
  std::shared_ptr<Twin> twin_;
};

// Normal numbers for a kind with `ports` input ports of `width` columns.
KindInput random_input(Index rows, Index width, std::uint64_t seed, Index ports = 1);

// Widened copies.
std::vector<double> widen(const std::vector<float>& values);

}  // namespace plait::testing
