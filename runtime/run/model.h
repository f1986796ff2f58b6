// Immutable: graph + layers + weights. Shared by threads and streams.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/graph/graph.h"
#include "runtime/run/layer.h"
#include "runtime/run/registry.h"

namespace plait {

// What a model file holds, in memory; tensors may point into a mapped file.
struct ModelData {
  std::string origin;  // file name, for messages
  Json card;
  std::map<std::string, std::map<std::string, Tensor>> tensors;  // node name -> tensor name -> tensor
  std::map<std::string, std::string> tokenizer;                  // file name -> bytes; empty = byte tokenizer
  std::map<std::string, std::string> published;  // files that say what the weights were: weights/README.md
  std::string digest;                            // SHA-256 over all tensors, see model_file.h
  std::string created_by, source;
};

class Model {
 public:
  // Throws a sentence on an unknown kind, a width mismatch, an unread key, a missing, surplus or mis-shaped
  // tensor.
  explicit Model(ModelData data, const Registry& registry = Registry::builtin());

  const Graph& graph() const { return graph_; }
  const Card& card() const { return graph_.card; }
  const ModelData& data() const { return data_; }
  const Layer& layer(int node) const { return *layers_[static_cast<std::size_t>(node)]; }
  const Kind& kind(int node) const { return *kinds_[static_cast<std::size_t>(node)]; }
  const Parameters& parameters(int node) const { return parameters_[static_cast<std::size_t>(node)]; }
  Index width(int node) const { return widths_[static_cast<std::size_t>(node)]; }  // output columns
  // Whether a row of the node's output may depend on other rows of its inputs.
  bool mixes_rows(int node) const {
    return !layer(node).fields().empty() || kind(node).graphs == Kind::Graphs::encoder;
  }
  int node_count() const { return static_cast<int>(layers_.size()); }
  // What a layer factory is given for this node; the reference engine builds its twins from the same.
  std::unique_ptr<Config> config(int node) const;
  // Parameters a node owns (tied weights count at their owner).
  Index parameter_count(int node) const;
  Index parameter_count() const;
  // Least common multiple of all grids of the layers: a kept boundary needs no open rows.
  Index boundary() const { return boundary_; }
  const std::string& digest() const { return data_.digest; }
  // What a snapshot knows a model by: SHA-256 of the digest of its tensors and of its card.
  std::string identity() const;

  // The tensors every node of a card wants, those kept aside included, before any weights exist: what `plait
  // new` fills.
  static std::map<std::string, std::vector<TensorSpec>> wanted(
      const Graph& graph, const Registry& registry = Registry::builtin());

 private:
  ModelData data_;
  Graph graph_;
  std::vector<const Kind*> kinds_;
  std::vector<Parameters> parameters_;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<Index> widths_;
  Index boundary_ = 1;
};

// {"mode", "isa" (fast only), "chunk", "key_block", "key_span", "version"}: everything that may change a bit.
Json arithmetic(const Card& card, const Compute& compute);
std::string arithmetic_digest(const Card& card, const Compute& compute);

}  // namespace plait
