#include "tools/ablate/sites.h"

#include <algorithm>
#include <set>

#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "tools/describe.h"

namespace plait::ablate {
namespace {

std::vector<Alias> make_aliases() {
  using enum Level;
  const auto on = [](Level level, const char* part, std::vector<Alias>& all) {
    const auto add = [&](const char* op, const char* needs, const char* summary) {
      all.push_back({cat(part, ".", op), level, "output", op, At::only, needs, summary});
    };
    add("zero", "", "its residual contribution := 0");
    add("mean", "", "its residual contribution := the mean over the reference");
    add("resample", "", "its residual contribution := one drawn from the reference");
    add("noise", "value", "its residual contribution + value x its RMS x a normal draw");
    add("scale", "value", "its residual contribution x value");
    add("patch", "", "its residual contribution := that of another run");
  };
  std::vector<Alias> all = {
      {"layer.skip", layer, "output", "skip", At::none, "", "output := input, nothing is run"}};
  on(mixer, "mixer", all);
  on(mlp, "mlp", all);
  on(branch, "branch", all);
  const Alias inner_sites[] = {
      {"branch.zero_rescale", branch, "output", "zero_rescale", At::none, "",
       "the branch := 0, those beside it scaled to keep the mean norm"},
      {"patch.residual", layer, "residual", "patch", At::only, "",
       "the stream behind the block := that of another run"},
      {"head.zero", inner, "head", "zero", At::only, "",
       "a head's output := 0, before norm, gate and output product"},
      {"head.mean", inner, "head", "mean", At::only, "",
       "a head's output := its mean over the reference, or values"},
      {"head.resample", inner, "head", "resample", At::only, "",
       "a head's output := one drawn from the reference, or values"},
      {"head.noise", inner, "head", "noise", At::only, "value",
       "a head's output + value x its RMS x a normal draw"},
      {"head.scale", inner, "head", "scale", At::only, "value", "a head's output x value"},
      {"attn.knockout", inner, "score", "knockout", At::only, "keys",
       "scores of the keys := -infinity (renormalises)"},
      {"attn.knockout_weight", inner, "score", "zero", At::only, "keys",
       "weights of the keys := 0 (no renormalising)"},
      {"attn.window", inner, "window", "set", At::none, "value",
       "the latest value keys and the first sinks keys"},
      {"attn.sink_mask", inner, "sinks", "mask", At::none, "value", "keys before value are hidden"},
      {"attn.nope", inner, "position", "none", At::none, "", "no rotary embedding"},
      {"attn.pos_shift", inner, "position", "shift", At::none, "value", "rotary positions + value"},
      {"state.zero_read", inner, "state", "zero", At::only, "",
       "the state as read := 0, the recurrence goes on"},
      {"state.reset", inner, "state", "reset", At::from, "tokens",
       "the state before token t := its initial value"},
      {"state.reset_every", inner, "state", "reset_every", At::none, "value",
       "a reset at every multiple of value"},
      {"state.freeze", inner, "state", "freeze", At::after, "", "behind token t neither writes nor decay"},
      {"state.no_write", inner, "state", "no_write", At::only, "", "nothing is written, decay goes on"},
      {"state.no_read", inner, "state", "no_read", At::only, "", "the read-out := 0"},
      {"state.delete_write", inner, "state", "delete_write", At::only, "tokens",
       "the update of token t is left out"},
      {"state.swap", inner, "state", "swap", At::from, "",
       "the state before token t := that of the reference there"},
      {"state.stale", inner, "state", "stale", At::none, "value",
       "reads see the state of value tokens before"},
      {"state.rank", inner, "state", "rank", At::none, "value",
       "the state := its best approximation of that rank"},
      {"state.noise", inner, "state", "noise", At::none, "value",
       "the state + value x its RMS x a normal draw"},
      {"state.cast", inner, "state", "cast", At::none, "to", "the state is kept in fp16, bf16 or int8"},
      {"decay.one", inner, "decay", "one", At::only, "", "nothing is forgotten"},
      {"decay.const", inner, "decay", "constant", At::only, "",
       "log decays := their mean over the reference, or value or values: no selectivity"},
      {"decay.zero", inner, "decay", "zero", At::only, "", "everything before the token is forgotten"},
      {"erase.off", inner, "erase", "off", At::only, "", "nothing is erased before a write"},
      {"write.const", inner, "write", "constant", At::only, "",
       "write strengths := their mean over the reference, or value or values"},
      {"write.zero", inner, "write", "zero", At::only, "", "write strength := 0"},
      {"conv.identity", inner, "conv", "identity", At::none, "", "the short convolution is bypassed"},
      {"conv.current_tap", inner, "conv", "current_tap", At::none, "",
       "only the weight on the current token"},
      {"gate.one", inner, "gate", "one", At::only, "", "the output gate := 1"},
      {"gate.mean", inner, "gate", "mean", At::only, "",
       "the output gate := its mean over the reference, or values"},
      {"qk_norm.off", inner, "qk_norm", "off", At::none, "", "queries and keys are not normalised"},
      {"skip_d.zero", inner, "skip_d", "zero", At::only, "", "the skip term D := 0"},
      {"norm.freeze", inner, "norm", "freeze", At::none, "",
       "the norm's scale := the whole model's at the same token, or values"},
  };
  all.insert(all.end(), std::begin(inner_sites), std::end(inner_sites));
  return all;
}

// Any inner site and operator of the canonical vocabulary; null if they are none.
std::unique_ptr<Alias> canonical(const std::string& name) {
  const auto dot = name.find('.');
  if (dot == std::string::npos) return nullptr;
  Alias alias{name,     Level::inner, name.substr(0, dot),       name.substr(dot + 1),
              At::only, "",           "as the layer's page says"};
  try {
    if (edit_at({alias, Json::object()}, "x").site == Site::output) return nullptr;
  } catch (const Error&) {
    return nullptr;
  }
  return std::make_unique<Alias>(std::move(alias));
}

[[noreturn]] void refuse_alias(const std::string& name) {
  const std::string site = name.substr(0, name.find('.'));
  std::vector<std::string> near, sites;
  for (const Alias& alias : aliases()) {
    const std::string own = alias.name.substr(0, alias.name.find('.'));
    if (own == site) near.push_back(alias.name);
    if (std::find(sites.begin(), sites.end(), own) == sites.end()) sites.push_back(own);
  }
  if (!near.empty())
    fail("there is no intervention '", name.substr(0, 60), "'; of this site there are ", joined(near));
  fail("there is no intervention '", name.substr(0, 60), "'; the sites are ", joined(sites));
}

bool supports(const Layer& layer, Site site, Operator op) {
  for (const SiteSpec& spec : sites_of(layer))
    if (spec.site == site)
      return std::find(spec.operators.begin(), spec.operators.end(), op) != spec.operators.end();
  return false;
}

std::vector<Component> nodes_with(const Model& model, const Operation& operation) {
  const Edit edit = edit_at(operation, "x");
  std::vector<Component> places;
  for (int node = 0; node < model.node_count(); ++node)
    if (supports(model.layer(node), edit.site, edit.op)) places.push_back(node_component(model, node));
  return places;
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Only a part that is edited as a whole, at every token, at full strength can be left out.
bool whole(const Operation& operation) {
  if (!operation.alias.removes()) return false;
  const Edit edit = edit_at(operation, "x");
  return edit.heads.empty() && edit.channels.empty() && edit.begin == 0 && edit.end < 0 &&
         edit.strength == 1 && edit.phase == Phase::always;
}

std::string component_type(const Pool& pool, std::span<const int> chosen) {
  std::set<std::string> words;
  for (const int i : chosen) {
    const Component& place = pool.places[static_cast<std::size_t>(i)];
    if (pool.operation.alias.level == Level::mlp)
      words.insert("mlp");
    else
      words.insert(place.kinds.begin(), place.kinds.end());
  }
  std::vector<std::string> all(words.begin(), words.end());
  if (pool.operation.alias.level == Level::layer) all.push_back("layer");
  return joined(all, "+");
}

}  // namespace

bool Alias::removes() const {
  return level != Level::inner && site == "output" &&
         (op == "zero" || op == "skip" || op == "mean" || op == "zero_rescale");
}

std::span<const Alias> aliases() {
  static const std::vector<Alias> table = make_aliases();
  return table;
}

Alias find_alias(const std::string& name) {
  const std::string full = name == "layer"                                        ? "layer.skip"
                           : name == "mixer" || name == "mlp" || name == "branch" ? name + ".zero"
                                                                                  : name;
  for (const Alias& alias : aliases())
    if (alias.name == full) return alias;
  if (const auto other = canonical(full)) return *other;
  refuse_alias(full);
}

const char* name_of(Level level) {
  constexpr const char* names[] = {"layer", "mixer", "branch", "mlp", "inner"};
  return names[static_cast<std::size_t>(level)];
}

Edit edit_at(const Operation& operation, const std::string& place) {
  const Alias& alias = operation.alias;
  if (!alias.needs.empty() && !operation.options.contains(alias.needs))
    fail("'", alias.name, "' needs the key '", alias.needs == "tokens" ? "at" : alias.needs, "'");
  for (const char* key : {"where", "operator"})
    if (operation.options.contains(key))
      fail("'", alias.name, "' takes no '", key, "'; that key belongs to an edit written out");
  Json json = operation.options;
  json["where"] = alias.site == "output" ? place : cat(place, "/", alias.site);
  json["operator"] = alias.op;
  if (!json.contains("value") && !json.contains("values") && !json.contains("reference")) {
    Edit measured = parse_edit(json);
    measured.reference = measured.site == Site::norm ? kClean : kReference;
    if (takes_inner_mean(measured) || takes_inner_rows(measured)) return measured;
  }
  return parse_edit(json);
}

bool reads_reference(const Edit& edit) {
  if (edit.op == Operator::swap) return true;
  if (edit.site != Site::output && edit.site != Site::residual)
    return (takes_inner_mean(edit) || takes_inner_rows(edit)) && edit.reference != kClean;
  return edit.op == Operator::mean || edit.op == Operator::resample || edit.op == Operator::patch ||
         edit.op == Operator::zero_rescale;
}

bool reads_baseline(const Edit& edit) { return takes_inner_rows(edit) && edit.reference == kClean; }

bool Pool::crowded() const {
  for (std::size_t i = 1; i < places.size(); ++i)
    if (places[i].block >= 0 && places[i].block == places[i - 1].block) return true;
  return false;
}

std::string Pool::tag(int i) const {
  const Component& place = places[static_cast<std::size_t>(i)];
  if (place.block < 0) return place.name;
  if (!crowded()) return cat(place.block);
  const std::string block = cat("blocks.", place.block, ".");
  return cat(place.block, ".", place.name.starts_with(block) ? place.name.substr(block.size()) : place.name);
}

Pool pool_of(const Model& model, const Components& components, const Operation& operation, Grain grain) {
  Pool pool{operation, {}, {}, components.blocks};
  switch (operation.alias.level) {
    case Level::layer:
      pool.places = components.layers;
      break;
    case Level::mixer:
      pool.places = grain == Grain::by_kind ? components.branches : components.mixers;
      break;
    case Level::branch:
      pool.places = components.branches;
      break;
    case Level::mlp:
      pool.places = components.mlps;
      break;
    case Level::inner:
      pool.places = nodes_with(model, operation);
      break;
  }
  if (pool.places.empty())
    fail("'", operation.alias.name, "' has no place in model '", model.data().origin, "': no ",
         operation.alias.level == Level::inner
             ? cat("layer has ", operation.alias.site, "/", operation.alias.op)
             : cat(name_of(operation.alias.level), " is there"));
  for (const Component& place : pool.places) pool.edits.push_back(edit_at(operation, place.name));
  return pool;
}

std::vector<int> places_of_kind(const Pool& pool, const Components& components, const std::string& kind) {
  std::vector<int> found;
  for (int i = 0; i < static_cast<int>(pool.places.size()); ++i) {
    const Component& place = pool.places[static_cast<std::size_t>(i)];
    const bool beside = pool.operation.alias.level == Level::mlp &&
                        contains(components.layers[static_cast<std::size_t>(place.block)].kinds, kind);
    if (kind.empty() || joined(place.kinds, "+") == kind || contains(place.kinds, kind) || beside)
      found.push_back(i);
  }
  return found;
}

std::vector<std::string> kinds_of(const Pool& pool) {
  std::set<std::string> kinds;
  for (const Component& place : pool.places) kinds.insert(joined(place.kinds, "+"));
  return {kinds.begin(), kinds.end()};
}

Condition condition_at(const Pool& pool, std::span<const int> chosen) {
  const Alias& alias = pool.operation.alias;
  Condition condition;
  condition.component_type = component_type(pool, chosen);
  condition.site = alias.name.substr(0, alias.name.find('.'));
  condition.op = alias.name.substr(alias.name.find('.') + 1);
  const bool removes = whole(pool.operation);
  std::set<int> blocks;
  for (const int i : chosen) {
    const Component& place = pool.places[static_cast<std::size_t>(i)];
    condition.edits.push_back(pool.edits[static_cast<std::size_t>(i)]);
    if (place.block >= 0) blocks.insert(place.block);
    if (!removes) continue;
    condition.params_removed += place.parameters;
    condition.state_bytes_removed += place.state_bytes;
    condition.kv_bytes_removed += place.kv_bytes;
  }
  condition.layers.assign(blocks.begin(), blocks.end());
  if (removes) condition.n_layers_removed = static_cast<Index>(blocks.size());
  if (!condition.edits.empty()) {
    condition.heads = condition.edits[0].heads;
    condition.phase = name_of(condition.edits[0].phase);
    condition.alpha = condition.edits[0].strength;
  }
  return condition;
}

}  // namespace plait::ablate
