#include "runtime/run/edit.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"

namespace plait {
namespace {

// The canonical vocabulary, in the order of the enums.
constexpr std::array kSites = {"output", "decay",   "write",  "erase", "state",   "read",
                               "conv",   "qk_norm", "gate",   "head",  "score",   "position",
                               "window", "sinks",   "skip_d", "norm",  "residual"};
constexpr std::array kOperators = {
    "zero",        "scale",  "skip",         "one",     "constant",     "off",   "identity",
    "current_tap", "freeze", "no_write",     "no_read", "delete_write", "reset", "reset_every",
    "knockout",    "set",    "mask",         "none",    "shift",        "mean",  "resample",
    "noise",       "patch",  "zero_rescale", "swap",    "rank",         "cast",  "stale"};
constexpr std::array kShadows = {"on", "off"};
constexpr std::array kEvery = {"unset", "token", "chunk"};
constexpr std::array kStorage = {"f32", "fp16", "bf16", "int8"};
constexpr std::array kPhases = {"always", "prefill", "decode", "after_prefix"};

template <class Enum, std::size_t N>
Enum parse_name(const std::array<const char*, N>& names, const std::string& text, const char* what) {
  for (std::size_t i = 0; i < N; ++i)
    if (text == names[i]) return static_cast<Enum>(i);
  std::string all;
  for (const char* name : names) all += cat(all.empty() ? "" : ", ", name);
  fail("edit: ", what, " '", text.substr(0, 60), "' is not one of ", all);
}

const Json* find(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() ? nullptr : &*found;
}

std::string text(const Json& value, const char* key) {
  if (!value.is_string()) fail("edit: '", key, "' must be a string, found ", value.dump().substr(0, 60));
  return value.get<std::string>();
}

double number(const Json& value, const char* key) {
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    fail("edit: '", key, "' must be a finite number, found ", value.dump().substr(0, 60));
  return value.get<double>();
}

Index whole(const Json& value, const char* key) {
  if (!value.is_number_integer() || value.get<std::int64_t>() < 0)
    fail("edit: '", key, "' must be an integer of at least 0, found ", value.dump().substr(0, 60));
  return value.get<Index>();
}

std::pair<Index, Index> range(const Json& value, const char* key) {
  if (!value.is_array() || value.size() != 2)
    fail("edit: '", key, "' must be [begin, end], found ", value.dump().substr(0, 60));
  const Index begin = whole(value[0], key);
  const Index end = value[1].is_null() ? -1 : whole(value[1], key);
  if (end >= 0 && end < begin) fail("edit: '", key, "' ends at ", end, ", before it begins at ", begin);
  return {begin, end};
}

void check_keys(const Json& json) {
  constexpr std::array known = {"where",  "operator",      "strength", "value",      "values",
                                "heads",  "tokens",        "keys",     "sinks",      "conv",
                                "phase",  "prefix_tokens", "seed",     "channels",   "reference",
                                "shadow", "every",         "to",       "activation", "norm_match"};
  for (const auto& [key, value] : json.items())
    if (std::find(known.begin(), known.end(), key) == known.end()) fail("edit: unknown key '", key, "'");
}

void read_scope(const Json& json, Edit& edit) {
  if (const Json* heads = find(json, "heads")) {
    if (!heads->is_array()) fail("edit: 'heads' must be a list, found ", heads->dump().substr(0, 60));
    for (const Json& head : *heads) edit.heads.push_back(whole(head, "heads"));
  }
  if (const Json* channels = find(json, "channels")) {
    if (!channels->is_array())
      fail("edit: 'channels' must be a list, found ", channels->dump().substr(0, 60));
    for (const Json& channel : *channels) edit.channels.push_back(whole(channel, "channels"));
  }
  if (const Json* tokens = find(json, "tokens")) std::tie(edit.begin, edit.end) = range(*tokens, "tokens");
  if (const Json* keys = find(json, "keys")) {
    std::tie(edit.key_begin, edit.key_end) = range(*keys, "keys");
    if (edit.key_end < 0) fail("edit: 'keys' needs an end");
  }
  if (const Json* phase = find(json, "phase"))
    edit.phase = parse_name<Phase>(kPhases, text(*phase, "phase"), "phase");
  if (const Json* prefix = find(json, "prefix_tokens")) edit.prefix_tokens = whole(*prefix, "prefix_tokens");
}

// A choice between two words; true for the second.
bool second_of(const Json& value, const char* key, const char* first, const char* second) {
  const std::string choice = text(value, key);
  if (choice != first && choice != second)
    fail("edit: '", key, "' must be ", first, " or ", second, ", found '", choice.substr(0, 60), "'");
  return choice == second;
}

void read_options(const Json& json, Edit& edit) {
  if (const Json* conv = find(json, "conv")) edit.reset_conv = second_of(*conv, "conv", "keep", "reset");
  if (const Json* activation = find(json, "activation"))
    edit.drop_activation = second_of(*activation, "activation", "keep", "drop");
  if (const Json* every = find(json, "every"))
    edit.every = second_of(*every, "every", "token", "chunk") ? Every::chunk : Every::token;
  if (const Json* to = find(json, "to")) edit.to = parse_name<Storage>(kStorage, text(*to, "to"), "to");
  if (const Json* match = find(json, "norm_match")) {
    if (!match->is_boolean())
      fail("edit: 'norm_match' must be true or false, found ", match->dump().substr(0, 60));
    edit.norm_match = match->get<bool>();
  }
}

bool at_least(double value, double least) { return value >= least && value == std::floor(value); }

void check_state_edit(const Edit& edit, const SiteSpec& spec) {
  const char* op = name_of(edit.op);
  if (edit.every == Every::unset)
    fail("edit of '", edit.node, "': state/", op, " needs \"every\": \"token\" or \"chunk\"");
  if (edit.every == Every::token && spec.finest == Every::chunk)
    fail("edit of '", edit.node, "': state/", op,
         " takes \"every\": \"chunk\" only, this layer has no state between the rows of a chunk");
  if (edit.op == Operator::rank && !at_least(edit.value, 1))
    fail("edit of '", edit.node, "': state/rank needs a whole 'value' of at least 1, found ", edit.value);
  if (edit.op == Operator::noise && !(edit.value >= 0))
    fail("edit of '", edit.node, "': state/noise needs a 'value' of at least 0, found ", edit.value);
  if (edit.op == Operator::cast && edit.to == Storage::f32)
    fail("edit of '", edit.node, "': state/cast needs \"to\": \"fp16\", \"bf16\" or \"int8\"");
}

std::vector<double> all_values(const Edit& edit) {
  return edit.values.empty() ? std::vector<double>{edit.value} : edit.values;
}

// Values that are tokens.
void check_tokens(const Edit& edit, Index least, Index most) {
  for (const double value : all_values(edit))
    if (!at_least(value, static_cast<double>(least)) || value > static_cast<double>(most))
      fail("edit of '", edit.node, "': ", name_of(edit.site), "/", name_of(edit.op),
           " needs a whole 'value' of tokens from ", least, " to ", most, ", found ", value);
}

void check_range(const Edit& edit) {
  constexpr Index kFarthest = Index{1} << 40;
  if (edit.op == Operator::stale) check_tokens(edit, 0, Index{1} << 30);
  if (edit.site == Site::window && edit.op == Operator::set) check_tokens(edit, 1, kFarthest);
  if (edit.site == Site::sinks && edit.op == Operator::mask) check_tokens(edit, 0, kFarthest);
  for (const double value : all_values(edit)) {
    if (edit.site == Site::position && edit.op == Operator::shift &&
        !(std::abs(value) <= static_cast<double>(kFarthest)))
      fail("edit of '", edit.node, "': position/shift by ", value, " tokens is too far; it goes to ",
           kFarthest);
    if (edit.site == Site::decay && edit.op == Operator::constant && !takes_inner_mean(edit) && !(value <= 0))
      fail("edit of '", edit.node, "': decay/constant takes the log of a decay, which is at most 0, found ",
           value);
  }
}

void check_values(const Edit& edit, const SiteSpec& spec) {
  const auto count = static_cast<Index>(edit.values.size()), all = spec.heads * spec.channels;
  const char *site = name_of(edit.site), *op = name_of(edit.op);
  if (edit.op == Operator::resample) {
    if (!takes_inner_rows(edit) && (count == 0 || all == 0 || count % all != 0))
      fail("edit of '", edit.node, "': ", site, "/resample needs a row of ", all,
           " 'values' per token, or a 'reference'; found ", count);
  } else if (edit.site == Site::norm) {
    if (count == 0 && edit.reference != kClean)
      fail("edit of '", edit.node, "': norm/freeze needs a value per token of its range, or a 'reference'");
  } else if (count > 1 && count != spec.heads && (count != all || all == 0)) {
    fail("edit of '", edit.node, "': ", site, "/", op, " takes a value for each of ", spec.heads, " heads",
         spec.channels > 1 ? cat(" or ", all, " channels") : "", ", found ", count);
  }
}

}  // namespace

void check(const Edit& edit, const SiteSpec& spec) {
  const char *site = name_of(edit.site), *op = name_of(edit.op);
  for (const Index head : edit.heads)
    if (spec.heads == 0)
      fail("edit of '", edit.node, "': ", site, "/", op, " takes no 'heads'");
    else if (head >= spec.heads)
      fail("edit of '", edit.node, "': head ", head, " is not one of the ", spec.heads, " heads of ", site);
  check_values(edit, spec);
  if (edit.site == Site::state &&
      (edit.op == Operator::rank || edit.op == Operator::noise || edit.op == Operator::cast))
    check_state_edit(edit, spec);
  check_range(edit);
  if (edit.site == Site::score && edit.key_begin >= edit.key_end)
    fail("edit of '", edit.node, "': score/", op, " needs \"keys\": [begin, end], found [", edit.key_begin,
         ", ", edit.key_end, ")");
}

const char* name_of(Site site) { return kSites[static_cast<std::size_t>(site)]; }
const char* name_of(Operator op) { return kOperators[static_cast<std::size_t>(op)]; }
const char* name_of(Phase phase) { return kPhases[static_cast<std::size_t>(phase)]; }
const char* name_of(Every every) { return kEvery[static_cast<std::size_t>(every)]; }
const char* name_of(Storage storage) { return kStorage[static_cast<std::size_t>(storage)]; }

Edit parse_edit(const Json& json) {
  if (!json.is_object()) fail("edit: must be an object, found ", json.dump().substr(0, 60));
  check_keys(json);
  if (!json.contains("where") || !json.contains("operator"))
    fail("edit: 'where' and 'operator' are required");
  Edit edit;
  const std::string where = text(json["where"], "where");
  const auto slash = where.find('/');
  edit.node = where.substr(0, slash);
  if (slash != std::string::npos) edit.site = parse_name<Site>(kSites, where.substr(slash + 1), "site");
  edit.op = parse_name<Operator>(kOperators, text(json["operator"], "operator"), "operator");
  if (const Json* value = find(json, "strength")) edit.strength = number(*value, "strength");
  if (edit.strength < 0 || edit.strength > 1)
    fail("edit: 'strength' must lie in [0, 1], found ", edit.strength);
  if (const Json* value = find(json, "value")) edit.value = number(*value, "value");
  if (const Json* values = find(json, "values")) {
    if (!values->is_array()) fail("edit: 'values' must be a list, found ", values->dump().substr(0, 60));
    for (const Json& value : *values) edit.values.push_back(number(value, "values"));
  }
  if (const Json* sinks = find(json, "sinks")) edit.sinks = whole(*sinks, "sinks");
  if (const Json* reference = find(json, "reference")) edit.reference = text(*reference, "reference");
  if (const Json* seed = find(json, "seed")) edit.seed = static_cast<std::uint64_t>(whole(*seed, "seed"));
  if (const Json* shadow = find(json, "shadow"))
    edit.shadow = parse_name<Shadow>(kShadows, text(*shadow, "shadow"), "shadow");
  read_options(json, edit);
  read_scope(json, edit);
  return edit;
}

Json to_json(const Edit& edit) {
  Json json = {{"where", edit.site == Site::output ? edit.node : cat(edit.node, "/", name_of(edit.site))},
               {"operator", name_of(edit.op)}};
  if (edit.strength != 1) json["strength"] = edit.strength;
  if (edit.value != 0) json["value"] = edit.value;
  if (!edit.values.empty()) json["values"] = edit.values;
  if (!edit.heads.empty()) json["heads"] = edit.heads;
  if (edit.begin != 0 || edit.end >= 0)
    json["tokens"] = Json::array({edit.begin, edit.end < 0 ? Json() : Json(edit.end)});
  if (edit.key_end > 0) json["keys"] = {edit.key_begin, edit.key_end};
  if (edit.sinks != 0) json["sinks"] = edit.sinks;
  if (edit.reset_conv) json["conv"] = "reset";
  if (edit.phase != Phase::always) json["phase"] = name_of(edit.phase);
  if (edit.prefix_tokens != 0) json["prefix_tokens"] = edit.prefix_tokens;
  if (!edit.channels.empty()) json["channels"] = edit.channels;
  if (!edit.reference.empty()) json["reference"] = edit.reference;
  if (edit.seed != 0) json["seed"] = edit.seed;
  if (edit.shadow != Shadow::on) json["shadow"] = kShadows[static_cast<std::size_t>(edit.shadow)];
  if (edit.every != Every::unset) json["every"] = name_of(edit.every);
  if (edit.to != Storage::f32) json["to"] = name_of(edit.to);
  if (edit.drop_activation) json["activation"] = "drop";
  if (edit.norm_match) json["norm_match"] = true;
  return json;
}

EditList parse_edits(const Json& json) {
  if (!json.is_array()) fail("edits: must be a list of edits, found ", json.dump().substr(0, 60));
  EditList edits;
  for (const Json& entry : json) edits.push_back(parse_edit(entry));
  return edits;
}

std::string digest(const EditList& edits) {
  Json list = Json::array();
  for (const Edit& edit : edits)
    if (edit.strength != 0) list.push_back(to_json(edit));
  return sha256(list.dump());
}

bool takes_inner_mean(const Edit& edit) {
  if (edit.reference.empty() || !edit.values.empty()) return false;
  const bool strength = edit.site == Site::decay || edit.site == Site::write;
  const bool factor = edit.site == Site::gate || edit.site == Site::head;
  return (strength && edit.op == Operator::constant) || (factor && edit.op == Operator::mean);
}

bool takes_inner_rows(const Edit& edit) {
  if (edit.reference.empty() || !edit.values.empty()) return false;
  return (edit.site == Site::head && edit.op == Operator::resample) ||
         (edit.site == Site::norm && edit.op == Operator::freeze);
}

bool covers(const Edit& edit, Index head) {
  return edit.heads.empty() || std::find(edit.heads.begin(), edit.heads.end(), head) != edit.heads.end();
}

double value_of(const Edit& edit, Index head) {
  return edit.values.empty() ? edit.value : edit.values[static_cast<std::size_t>(head) % edit.values.size()];
}

Index tokens_back(const Edit& edit, Index head) { return static_cast<Index>(value_of(edit, head)); }

Index most_tokens_back(const Edit& edit) {
  double most = edit.values.empty() ? edit.value : 0;
  for (const double value : edit.values) most = std::max(most, value);
  return static_cast<Index>(most);
}

const Edit* Edits::find(Site site, Operator op, Index head) const {
  for (auto it = edits_.rbegin(); it != edits_.rend(); ++it)
    if ((*it)->site == site && (*it)->op == op && covers(**it, head)) return *it;
  return nullptr;
}

const Edit* Edits::find(Site site, Operator op) const {
  for (auto it = edits_.rbegin(); it != edits_.rend(); ++it)
    if ((*it)->site == site && (*it)->op == op) return *it;
  return nullptr;
}

bool Edits::has(Site site) const {
  return std::any_of(edits_.begin(), edits_.end(), [&](const Edit* e) { return e->site == site; });
}

}  // namespace plait
