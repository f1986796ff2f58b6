// plait inspect: what a model or snapshot file holds.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <optional>

#include "runtime/base/error.h"
#include "runtime/run/edit_plan.h"
#include "runtime/run/windows.h"
#include "tools/describe.h"
#include "tools/program.h"
#include "tools/stream/session.h"
#include "tools/verbs.h"
#include "weights/model_file.h"
#include "weights/snapshot_file.h"

namespace plait {
namespace {

using Rows = std::vector<std::vector<std::string>>;

struct Inspect {
  Common common;
  std::string path;
  std::vector<Index> at = {0, 1024, 32768, 1048576};
  std::optional<Index> window;
  Index sinks = 0;
  bool graph = false, tensors = false, sites = false, state = false, card = false, check = false;
  bool details() const { return graph || tensors || sites || state || card; }

  int run() const {
    if (file_kind(path) == FileKind::snapshot) return inspect_snapshot(load_snapshot(path));
    const auto model = open_model(path, common);
    if (check) check_digest(path);
    return inspect_model(*model);
  }

  int inspect_model(const Model& model) const;
  int inspect_snapshot(const Snapshot& snapshot) const;
  int finish(const std::string& text, const Json& json) const {
    if (!common.json_only()) print(text);
    flush_output();
    write_json(common, json);
    return kDone;
  }
};

const Node& node_of(const Model& model, int n) { return model.graph().nodes[static_cast<std::size_t>(n)]; }

// Every tensor a node owns: a tied weight belongs to the node it is tied to.
template <class F>
void for_each_tensor(const Model& model, F&& f) {
  for (int n = 0; n < model.node_count(); ++n) {
    const Node& node = node_of(model, n);
    for (const auto& [name, tensor] : model.parameters(n).all())
      if (node.tied.empty() || name != "weight") f(node, name, tensor);
  }
}

std::size_t tensor_bytes(const Model& model) {
  std::size_t bytes = 0;
  for_each_tensor(model, [&](const Node&, const std::string&, const Tensor& t) { bytes += t.bytes; });
  return bytes;
}

std::map<std::string, Index> parameters_by_group(const Model& model) {
  std::map<std::string, Index> counts;
  for (int n = 0; n < model.node_count(); ++n)
    if (model.parameter_count(n) > 0) counts[model.kind(n).group] += model.parameter_count(n);
  return counts;
}

std::map<std::string, int> nodes_by_kind(const Model& model) {
  std::map<std::string, int> counts;
  for (int n = 0; n < model.node_count(); ++n) ++counts[node_of(model, n).kind];
  return counts;
}

// Parameters the file keeps outside the graph, by what they are for.
std::map<std::string, Index> kept_aside(const Model& model) {
  std::map<std::string, Index> counts;
  for (const auto& [node, tensors] : model.graph().aside)
    for (const auto& [name, shape] : tensors) counts[node.substr(0, node.find('.'))] += element_count(shape);
  return counts;
}

// The fields of a stream's states by node.
using Fields = std::vector<std::vector<Field>>;

// Under --window.
Fields stream_fields(const Model& model, const Inspect& args) {
  const EditPlan plan(model, args.window ? window_edits(model, *args.window, args.sinks) : EditList());
  Fields all;
  for (int n = 0; n < model.node_count(); ++n) all.push_back(plan.fields(model.layer(n).fields(), n));
  return all;
}

// Bytes of a stream's states after some tokens, by arithmetic: what Stream::state_bytes will say.
std::size_t predicted_bytes(const Fields& fields, Index position) {
  std::size_t bytes = 0;
  for (const auto& of_node : fields) bytes += State::predicted_bytes(of_node, position);
  return bytes;
}

struct StateSize {
  std::size_t birth = 0, windows = 0, per_token = 0;
};

StateSize state_size(const Fields& fields) {
  StateSize size;
  for (const auto& of_node : fields) {
    size.birth += birth_bytes(of_node);
    size.windows += window_bytes(of_node);
    size.per_token += log_bytes_per_token(of_node);
  }
  return size;
}

std::string summary(const Model& model, const Inspect& args) {
  const ModelData& data = model.data();
  const StateSize size = state_size(stream_fields(model, args));
  const auto bytes = [](std::size_t b) { return human_bytes(static_cast<double>(b)); };
  Rows rows = {{"model", cat(model.card().name, " (family ", model.card().family, ", format ", kFormat, ")")},
               {"sha256", data.digest + (args.check ? " (checked)" : "")},
               {"made by", data.created_by + (data.source.empty() ? "" : "; " + data.source)},
               {"vocabulary", std::to_string(model.card().vocab)},
               {"width", std::to_string(model.card().width)},
               {"parameters", cat(model.parameter_count(), ", ", bytes(tensor_bytes(model)), " in tensors")}};
  for (const auto& [group, count] : parameters_by_group(model))
    rows.push_back(
        {"  " + group,
         cat(count, " (",
             fixed(100.0 * static_cast<double>(count) / static_cast<double>(model.parameter_count()), 1),
             " %)")});
  for (const auto& [use, count] : kept_aside(model))
    rows.push_back({"kept aside", cat(use, ": ", count, " parameters outside the graph")});
  std::string nodes;
  for (const auto& [kind, count] : nodes_by_kind(model))
    nodes += cat(nodes.empty() ? "" : ", ", count, " ", kind);
  rows.push_back({"nodes", cat(model.node_count(), ": ", nodes)});
  if (!model.card().causal) {
    rows.push_back({"graph", "encoder: whole sequences, no stream"});
    return table(rows, "ll");
  }
  rows.push_back({"state of a stream",
                  cat(bytes(size.birth), " at the start, ", bytes(size.windows), " more in full windows")});
  rows.push_back({"cache per token", size.per_token == 0 ? std::string("none: the state does not grow")
                                                         : bytes(size.per_token)});
  return table(rows, "ll");
}

std::string tensor_table(const Model& model) {
  Rows rows = {{"TENSOR", "SHAPE", "DTYPE", "LAYOUT", "BYTES"}};
  for_each_tensor(model, [&](const Node& node, const std::string& name, const Tensor& t) {
    rows.push_back({node.name + "." + name, to_string(t.shape), name_of(t.dtype), name_of(t.layout),
                    std::to_string(t.bytes)});
  });
  return table(rows, "llllr");
}

// The sites of a node where it stands: only what is added to a residual stream can be skipped on its own.
std::vector<SiteSpec> node_sites(const Model& model, int n) {
  std::vector<SiteSpec> sites = sites_of(model.layer(n));
  if (!model.card().causal)  // nothing is kept
    std::erase_if(sites, [](const SiteSpec& spec) { return spec.site == Site::state; });
  const auto& groups = model.graph().groups;
  const bool contributes = std::any_of(groups.begin(), groups.end(), [&](const Group& g) {
    return std::find(g.contributions.begin(), g.contributions.end(), n) != g.contributions.end();
  });
  if (!contributes) std::erase(sites[0].operators, Operator::skip);
  return sites;
}

std::string site_table(const Model& model) {
  Rows rows = {{"NODE/SITE", "OPERATORS"}};
  for (int n = 0; n < model.node_count(); ++n)
    for (const SiteSpec& site : node_sites(model, n))
      rows.push_back(
          {node_of(model, n).name + (site.site == Site::output ? "" : cat("/", name_of(site.site))),
           operators_of(site)});
  for (const Group& group : model.graph().groups)
    rows.push_back({group.name + " (group)", "zero, scale, skip"});
  return table(rows, "ll");
}

std::string state_table(const Model& model, const Inspect& args) {
  Rows rows = {{"NODE", "FIELD", "KIND", "SHAPE", "DTYPE", "BYTES", "GRID", "WINDOW",
                "SINKS"}};  // of the whole, or of a token's row
  const auto some = [](Index value) { return value > 0 ? std::to_string(value) : std::string("-"); };
  const auto fields = stream_fields(model, args);
  for (int n = 0; n < model.node_count(); ++n)
    for (const Field& f : fields[static_cast<std::size_t>(n)])
      rows.push_back({node_of(model, n).name, f.name, name_of(f.kind), to_string(f.shape), name_of(f.dtype),
                      std::to_string(static_cast<std::size_t>(f.width()) * bytes_of(f.dtype)), some(f.grid),
                      f.kind == Field::Kind::log && f.window == 0 ? "all" : some(f.window), some(f.sinks)});
  std::string text = table(rows, "lllllrrrr");
  rows = {};
  rows.push_back({"", "STATE", "TOKENS", "TOKENS OF RUN"});
  for (const Index position : args.at)
    rows.push_back({cat("bytes of a stream of ", position, " tokens"),
                    std::to_string(predicted_bytes(fields, position)),
                    std::to_string(stream::predicted_token_bytes(position)),
                    std::to_string(static_cast<std::size_t>(position) * sizeof(Token))});
  return text + table(rows, "lrrr");
}

Json node_json(const Model& model, int n, const Inspect& args, const std::vector<Field>& fields) {
  Json json = {{"name", node_of(model, n).name},
               {"kind", node_of(model, n).kind},
               {"group", model.kind(n).group},
               {"parameters", model.parameter_count(n)},
               {"state_bytes", birth_bytes(fields)},
               {"window_bytes", window_bytes(fields)},
               {"bytes_per_token", log_bytes_per_token(fields)},
               {"sites", Json::array()}};
  for (const SiteSpec& site : node_sites(model, n))
    json["sites"].push_back(args.sites ? to_json(site) : Json(name_of(site.site)));
  if (args.state) {
    json["fields"] = Json::array();
    for (const Field& field : fields) json["fields"].push_back(to_json(field));
  }
  return json;
}

Json model_json(const Model& model, const Inspect& args) {
  const Fields fields = stream_fields(model, args);
  const StateSize size = state_size(fields);
  Json json = {{"format", kFormat},
               {"name", model.card().name},
               {"family", model.card().family},
               {"file", args.path},
               {"sha256", model.digest()},
               {"created_by", model.data().created_by},
               {"source", model.data().source},
               {"vocab", model.card().vocab},
               {"width", model.card().width},
               {"causal", model.card().causal},
               {"parameters", model.parameter_count()},
               {"parameters_by_kind", parameters_by_group(model)},
               {"parameters_aside", kept_aside(model)},
               {"tensor_bytes", tensor_bytes(model)},
               {"state_bytes", size.birth},
               {"window_bytes", size.windows},
               {"bytes_per_token", size.per_token},
               {"nodes", Json::array()}};
  for (int n = 0; n < model.node_count(); ++n)
    json["nodes"].push_back(node_json(model, n, args, fields[static_cast<std::size_t>(n)]));
  json["stream_bytes"] = Json::array();
  for (const Index position : args.at)
    json["stream_bytes"].push_back({{"tokens", position},
                                    {"bytes", predicted_bytes(fields, position)},
                                    {"token_bytes", stream::predicted_token_bytes(position)}});
  if (args.check) json["checked"] = true;
  if (args.card) json["card"] = model.card().json;
  if (args.graph) json["graph"] = explicit_graph(model.graph());
  if (args.tensors) {
    json["tensors"] = Json::array();
    for_each_tensor(model, [&](const Node& node, const std::string& name, const Tensor& t) {
      json["tensors"].push_back({{"node", node.name},
                                 {"name", name},
                                 {"shape", t.shape},
                                 {"dtype", name_of(t.dtype)},
                                 {"layout", name_of(t.layout)},
                                 {"bytes", t.bytes}});
    });
  }
  return json;
}

int Inspect::inspect_model(const Model& model) const {
  if (window && !model.card().causal)
    throw UsageError(cat("'", path, "' is an encoder, which keeps no state; it takes no --window"));
  std::string text;
  if (!details()) text += summary(model, *this);
  if (card) text += model.card().json.dump(2) + "\n";
  if (graph) text += explicit_graph(model.graph()).dump(2) + "\n";
  if (tensors) text += tensor_table(model);
  if (sites) text += site_table(model);
  if (state) text += state_table(model, *this);
  return finish(text, common.json.empty() ? Json() : model_json(model, *this));
}

std::size_t image_bytes(const State::Image& image) {
  std::size_t bytes = 0;
  for (const auto& item : image.items) {
    bytes += item.bytes.size();
    for (const auto& piece : item.pieces) bytes += piece.rows.size();
  }
  return bytes;
}

int Inspect::inspect_snapshot(const Snapshot& s) const {
  if (graph || tensors || sites || card)
    throw UsageError(cat("'", path, "' is a snapshot; of --graph, --tensors, --sites, --card it has none"));
  if (window)
    throw UsageError(cat("'", path, "' is a snapshot, saved with its own edits; it takes no --window"));
  std::size_t total = 0;
  Json nodes = Json::array();
  Rows fields = {{"NODE", "FIELD", "KIND", "SHAPE", "BYTES"}};
  for (const auto& node : s.states) {
    const std::size_t bytes = image_bytes(node.image);
    total += bytes;
    nodes.push_back({{"name", node.node}, {"position", node.image.position}, {"state_bytes", bytes}});
    for (std::size_t i = 0; i < node.fields.size() && i < node.image.items.size(); ++i) {
      State::Image one{node.image.position, {node.image.items[i]}};
      fields.push_back({node.node, node.fields[i].name, name_of(node.fields[i].kind),
                        to_string(node.fields[i].shape), std::to_string(image_bytes(one))});
    }
  }
  const Rows rows = {
      {"snapshot of", s.model_name},
      {"model identity", s.model_identity},
      {"position", std::to_string(s.position())},
      {"tokens",
       s.forgotten == 0 ? std::string("all") : cat("the last ", s.tokens.size(), ", a digest of the others")},
      {"arithmetic", s.arithmetic.dump()},
      {"edits", s.edits.dump()},
      {"sampler", s.sampler.dump()},
      {"logits", s.logits.empty() ? "none" : "of the last token"},
      {"states", cat(s.states.size(), " nodes, ", human_bytes(static_cast<double>(total)))}};
  Json json = {{"snapshot", 1},
               {"model", s.model_name},
               {"model_identity", s.model_identity},
               {"position", s.position()},
               {"tokens_kept", s.tokens.size()},
               {"arithmetic", s.arithmetic},
               {"edits", s.edits},
               {"sampler", s.sampler},
               {"stream", s.id},
               {"logits", !s.logits.empty()},
               {"state_bytes", total},
               {"nodes", nodes}};
  return finish(state ? table(fields, "llllr") : table(rows, "ll"), json);
}

}  // namespace

void add_inspect(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Inspect>();
  CLI::App* verb = program.add_subcommand("inspect", "Show what a model or snapshot holds");
  verb->add_option("FILE", args->path, "A model or snapshot")->required();
  verb->add_flag("--graph", args->graph, "The card expanded to its list of nodes (JSON)");
  verb->add_flag("--tensors", args->tensors, "Every tensor: shape, dtype, layout, bytes");
  verb->add_flag("--sites", args->sites, "Places an edit may name, with their operators");
  verb->add_flag("--state", args->state, "The fields of every node's state, and its bytes after N tokens");
  verb->add_option("--at", args->at, "Tokens after which --state and the JSON give the bytes of a stream")
      ->check(CLI::Range(Index{0}, Index{1} << 40))
      ->type_name("N")
      ->allow_extra_args(false);
  add_window(*verb, args->window, args->sinks);
  verb->add_flag("--card", args->card, "The card as stored (JSON)");
  verb->add_flag("--check", args->check, "Recompute the digest over all tensors and compare");
  add_common(*verb, args->common, "not used");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
