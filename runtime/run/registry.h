// The layer kinds by key. One row per kind; cards, `plait kinds`, `plait verify`, the conformance suite and
// the benches all read it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"
#include "runtime/run/layer.h"

namespace plait {

class Twin;  // layers/reference/twin.h

struct Kind {
  std::string key;      // "gated_delta_net"
  std::string group;    // component kind for counts: "attention", "recurrent", "mlp", "norm", "embedding",
                        // "head", "other"
  std::string summary;  // one line
  std::string source;   // paper, arXiv id, equation
  // Settings that build with width 64: what `plait kinds` lists tensors, sites and fields of, and what the
  // generic suites run. The first is the plain form; the others exercise the options.
  std::vector<std::string> examples;
  // Reads every setting (and ends with config.finish()); returns the tensors the node wants.
  std::function<std::vector<TensorSpec>(Config&)> tensors;
  std::function<std::unique_ptr<Layer>(Config&, const Parameters&)> make;
  std::function<std::shared_ptr<Twin>(Config&, const Parameters&)> twin;
  // Columns of the output port: those of the first input port (a source of the graph: the model's width), or
  // the vocabulary. Known without weights, so that a card can be filled with new ones.
  enum class Output { same_width, vocab } output = Output::same_width;
  // What a card may have the kind in: a causal graph, where a row sees no later token, an encoder, whose rows
  // see the whole sequence, or both.
  enum class Graphs { causal, both, encoder } graphs = Graphs::causal;
  // Further examples for encoders, of a kind that has settings of its own there or keeps state.
  std::vector<std::string> encoder_examples = {};
  // How far the twin's double may be from the fast kind: relative error <= bound_factor * eps *
  // sqrt(bound_length), bound_length the longest reduction; see the kind's page for the derivation.
  double bound_factor = 8;
};

class Registry {
 public:
  void add(Kind kind);                             // asserts that the key is new
  const Kind& find(const std::string& key) const;  // throws Error listing near names
  const std::map<std::string, Kind>& kinds() const { return kinds_; }

  // All kinds of plait; defined by layers/builtin.cc.
  static const Registry& builtin();

 private:
  std::map<std::string, Kind> kinds_;
};

// What `automatic` means on this machine; defined beside the registration table, because it knows the
// kernels.
Isa resolve_isa(Isa isa);

}  // namespace plait
