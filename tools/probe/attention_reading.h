// A text as the softmax attentions of a model read it: what the probes of attention share. Weights are those
// of the nodes' double-precision twins on the inputs that the fast engine gives the nodes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "layers/reference/attention_twin.h"
#include "layers/reference/softmax_attention.h"
#include "tools/program.h"
#include "tools/twins.h"

namespace plait::probe {

struct ReadingFlags {
  std::string model, text, tokens;
  bool no_special = false;
  Index limit = 256;
  std::vector<std::string> layers;
  std::vector<Index> heads;
};
void add_reading_flags(CLI::App& verb, ReadingFlags& flags);

// One softmax_attention node and what it sees.
struct AttentionNode {
  int node = 0;
  std::string name;
  SoftmaxAttentionSettings settings;
  std::unique_ptr<TwinNode> twin;
  std::unique_ptr<AttentionTwin::Sequence> sequence;
  std::vector<Index> heads;   // query heads asked for
  std::vector<float> output;  // [tokens, width], of the fast engine
};

struct Reading {
  std::shared_ptr<const Model> model;
  std::string source;  // file the tokens are from
  std::vector<Token> tokens;
  std::vector<AttentionNode> nodes;

  Index length() const { return static_cast<Index>(tokens.size()); }
  bool causal() const { return model->card().causal; }
  // Row 0 of a causal map has one key and says nothing.
  Index first_row() const { return causal() ? 1 : 0; }
  Json json() const;  // model, text, tokens
};

// The text that the flags name, read by the model that they name. Throws UsageError or Error: no such node or
// head, a model without softmax_attention, a text of less than two tokens.
Reading read_attention(const ReadingFlags& flags, const Common& common);
// Tokens read by a model: of the flags only the nodes and heads asked for.
Reading read_attention(std::shared_ptr<const Model> model, std::vector<Token> tokens,
                       const ReadingFlags& flags, const Compute& compute);

// The logit of the sink that a head's softmax has beside its keys: none, 0 or learned. Throws Error if the
// node's normaliser is no softmax of base e: its weights are not exp(s) over a sum.
std::optional<double> sink_logit(const Model& model, const AttentionNode& node, Index head);

// Weights of one head as a matrix [tokens, tokens], zero where a key is not visible.
std::vector<double> weights_of(const AttentionNode& node, Index head, Index tokens);
// Where a row's own token stands among the keys it sees.
std::size_t own_place(const TwinRow& row);
// Values that one query head reads, [tokens, value_head_dim].
std::vector<double> values_of(const AttentionNode& node, Index head, Index tokens);

}  // namespace plait::probe
