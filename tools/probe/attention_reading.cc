#include "tools/probe/attention_reading.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/run/recording.h"
#include "runtime/text/tokenizer.h"

namespace plait::probe {
namespace {

constexpr const char* kKind = "softmax_attention";

// "3" is every attention of block 3; other words name a node.
bool named_by(const std::string& node, const std::string& word) {
  const bool number = word.find_first_not_of("0123456789") == std::string::npos;
  return number ? node.starts_with(cat("blocks.", word, ".")) : node == word || node.starts_with(word + ".");
}

std::vector<int> chosen_nodes(const Model& model, const std::vector<std::string>& words) {
  std::vector<int> all;
  for (int n = 0; n < model.node_count(); ++n)
    if (model.kind(n).key == kKind) all.push_back(n);
  if (all.empty())
    fail("'", model.data().origin, "' has no node of kind ", kKind, ", which this probe reads");
  if (words.empty()) return all;
  std::vector<int> chosen;
  for (const std::string& word : words) {
    const std::size_t before = chosen.size();
    for (const int n : all)
      if (named_by(model.graph().nodes[static_cast<std::size_t>(n)].name, word)) chosen.push_back(n);
    if (chosen.size() > before) continue;
    std::string names;
    for (const int n : all)
      names += cat(names.empty() ? "" : ", ", model.graph().nodes[static_cast<std::size_t>(n)].name);
    throw UsageError(cat("--layer ", word, " names no ", kKind, "; there are ", names));
  }
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

std::vector<Index> chosen_heads(const std::vector<Index>& asked, Index num_heads, const std::string& name) {
  if (asked.empty()) {
    std::vector<Index> all(static_cast<std::size_t>(num_heads));
    std::iota(all.begin(), all.end(), Index{0});
    return all;
  }
  for (const Index h : asked)
    if (h < 0 || h >= num_heads)
      throw UsageError(cat("--head ", h, ": ", name, " has heads 0 to ", num_heads - 1));
  return asked;
}

}  // namespace

void add_reading_flags(CLI::App& verb, ReadingFlags& flags) {
  verb.add_option("MODEL", flags.model, "A model file (default: the bundled model)");
  auto* input = verb.add_option_group("input", "What is read");
  input->add_option("--text", flags.text, "A text file; - is standard input");
  input->add_option("--tokens", flags.tokens, "Token ids: text separated by white space, or .npy");
  input->require_option(1);
  verb.add_flag("--no-special", flags.no_special, "Leave out the tokenizer's special tokens");
  verb.add_option("--limit", flags.limit, "Read the first N tokens (default 256)")
      ->check(CLI::Range(Index{2}, Index{1} << 16))
      ->type_name("N");
  verb.add_option("--layer", flags.layers, "Only these: a block's number or a node's name, repeatable")
      ->allow_extra_args(false);
  verb.add_option("--head", flags.heads, "Only these query heads, repeatable")->allow_extra_args(false);
}

Reading read_attention(const ReadingFlags& flags, const Common& common) {
  const auto model = open_model(flags.model.empty() ? bundled_model() : flags.model, common);
  chosen_nodes(*model, flags.layers);  // a model that cannot be read is said before a text that cannot
  const std::string& source = flags.text.empty() ? flags.tokens : flags.text;
  std::vector<Token> tokens =
      flags.text.empty() ? read_tokens(flags.tokens, model->card().vocab)
                         : tokenizer_of(*model)->encode(
                               read_file(flags.text), flags.no_special ? Specials::without : Specials::with);
  if (static_cast<Index>(tokens.size()) > flags.limit) tokens.resize(static_cast<std::size_t>(flags.limit));
  if (tokens.size() < 2)
    fail("'", source, "' has ", tokens.size(), " tokens; attention needs two to choose from");
  Reading reading = read_attention(model, std::move(tokens), flags, common.compute(Numerics::exact));
  reading.source = source;
  return reading;
}

Reading read_attention(std::shared_ptr<const Model> opened, std::vector<Token> tokens,
                       const ReadingFlags& flags, const Compute& compute) {
  const Model& model = *opened;
  Reading reading{std::move(opened), "", std::move(tokens), {}};
  for (const int n : chosen_nodes(model, flags.layers)) {
    AttentionNode& node = reading.nodes.emplace_back();
    node.node = n;
    node.name = model.graph().nodes[static_cast<std::size_t>(n)].name;
    node.settings = read_softmax_attention(*model.config(n));
    node.heads = chosen_heads(flags.heads, node.settings.projection.num_heads, node.name);
  }
  RecordRequest request;
  request.rows = true;
  for (const AttentionNode& node : reading.nodes) {
    const int input = model.graph().nodes[static_cast<std::size_t>(node.node)].inputs[0];
    request.nodes.push_back(model.graph().nodes[static_cast<std::size_t>(input)].name);
    request.nodes.push_back(node.name);
  }
  const Recording recording =
      record(model, std::vector<std::vector<Token>>{reading.tokens}, request, compute);
  for (std::size_t i = 0; i < reading.nodes.size(); ++i) {
    AttentionNode& node = reading.nodes[i];
    const std::vector<float>& rows = recording.nodes.at(request.nodes[2 * i])->rows;
    const std::vector<double> x(rows.begin(), rows.end());
    node.output = recording.nodes.at(node.name)->rows;
    node.twin = std::make_unique<TwinNode>(model, node.node, reading.tokens);
    node.sequence = dynamic_cast<const AttentionTwin&>(node.twin->twin())
                        .open({x.data(), reading.length(), model.width(node.node)});
  }
  return reading;
}

Json Reading::json() const {
  return {{"model", model->card().name},
          {"model_sha256", model->digest()},
          {"text", source},
          {"tokens", tokens.size()}};
}

std::optional<double> sink_logit(const Model& model, const AttentionNode& node, Index head) {
  const auto* softmax = std::get_if<Softmax>(&node.settings.normaliser);
  if (!softmax)
    fail(node.name, ": this probe needs weights exp(s) over their sum, which its normaliser does not give");
  if (softmax->sink == Softmax::Sink::none) return std::nullopt;
  if (softmax->sink == Softmax::Sink::zero) return 0;
  return to_double(model.parameters(node.node).tensor("sinks"))[static_cast<std::size_t>(head)];
}

std::vector<double> weights_of(const AttentionNode& node, Index head, Index tokens) {
  std::vector<double> matrix(static_cast<std::size_t>(tokens * tokens));
  for (Index i = 0; i < tokens; ++i) {
    const AttentionTwin::Look look = node.sequence->look(i, head);
    for (std::size_t n = 0; n < look.weights.size(); ++n)
      matrix[static_cast<std::size_t>(i * tokens + look.row.keys[n])] = look.weights[n];
  }
  return matrix;
}

std::size_t own_place(const TwinRow& row) {
  const auto own = std::lower_bound(row.keys.begin(), row.keys.end(), row.position);
  return static_cast<std::size_t>(own - row.keys.begin());
}

std::vector<double> values_of(const AttentionNode& node, Index head, Index tokens) {
  const Index width = node.settings.projection.value_head_dim;
  std::vector<double> values;
  for (Index j = 0; j < tokens; ++j) {
    const AttentionTwin::Look look = node.sequence->look(j, head);
    const double* own = look.row.values[own_place(look.row)];
    values.insert(values.end(), own, own + width);
  }
  return values;
}

}  // namespace plait::probe
