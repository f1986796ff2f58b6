#include "tools/ablate/spec.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "runtime/base/error.h"
#include "runtime/base/words.h"

namespace plait::ablate {
namespace {

constexpr Index kMaxLayers = 100000, kMaxLength = Index{1} << 40, kMaxBoot = 10000000;

std::vector<std::string> texts(const Value& list) {
  std::vector<std::string> all;
  for (const Value& item : list.items_or_single()) all.push_back(item.text());
  return all;
}

// Runs what may throw about a value, and says where the value was written.
template <class Action>
auto told_where(const Value& value, Action&& action) {
  try {
    return action();
  } catch (const Error& error) {
    value.refuse(error.what());
  }
}

bool is_id(const std::string& text) {
  return text.size() <= 80 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) || c == '_' || c == '-' || c == '.' || c == '+';
         });
}

// "3", "0-7", 3.
void read_layer_range(const Value& value, std::set<int>& layers) {
  if (value.json().is_number()) {
    layers.insert(static_cast<int>(value.integer(0, kMaxLayers)));
    return;
  }
  const std::string text = value.json().is_string() ? value.text() : "";
  const auto dash = text.find('-');
  const std::string begin = text.substr(0, dash),
                    end = dash == std::string::npos ? begin : text.substr(dash + 1);
  const auto number = [](const std::string& digits) {
    const bool good =
        !digits.empty() && digits.size() <= 5 && digits.find_first_not_of("0123456789") == std::string::npos;
    return good ? std::stoi(digits) : -1;
  };
  const int first = number(begin), last = number(end);
  if (first < 0 || last < first) value.refuse_type("a block number or a range such as 0-7");
  for (int layer = first; layer <= last; ++layer) layers.insert(layer);
}

std::vector<int> read_layers(const Value& value) {
  std::set<int> layers;
  for (const Value& item : value.items_or_single()) read_layer_range(item, layers);
  if (layers.empty()) value.refuse_type("at least one block");
  return {layers.begin(), layers.end()};
}

// The keys of `where` that belong to the edit rather than to the choice of places.
constexpr const char* kScope[] = {"heads", "channels", "tokens", "keys"};

void read_where(const Value& value, Part& part) {
  Section where(value);
  where.maybe("kind", [&](const Value& kind) { part.kind = kind.text(); });
  where.maybe("layers", [&](const Value& layers) { part.layers = read_layers(layers); });
  for (const char* key : kScope)
    where.maybe(key, [&](const Value& scope) { part.options[key] = scope.json(); });
  where.finish();
}

void read_at(const Value& value, const Alias& alias, Part& part) {
  const Index t = value.integer(0, kMaxLength);
  if (alias.at == At::none) value.refuse("'", alias.name, "' takes no 'at'");
  if (part.options.contains("tokens"))
    value.refuse("'at' and 'tokens' are two names for one range; give one");
  const Index begin = alias.at == At::after ? t + 1 : t;
  part.options["tokens"] = Json::array({begin, alias.at == At::only ? Json(t + 1) : Json()});
}

Part read_alias_part(Section& entry) {
  Part part;
  const Value site = entry.get("site"), op = entry.get("op");
  const Alias alias = told_where(site, [&] { return find_alias(cat(site.text(), ".", op.text())); });
  part.alias = alias.name;
  entry.maybe("where", [&](const Value& where) { read_where(where, part); });
  entry.maybe("at", [&](const Value& at) { read_at(at, alias, part); });
  entry.maybe("alpha", [&](const Value& alpha) { part.options["strength"] = alpha.number(0, 1); });
  for (const Json rest = entry.rest(); const auto& [key, value] : rest.items()) {
    if (part.options.contains(key))
      entry.value().at(key).refuse("'", key, "' is given twice, once under 'where', 'at' or 'alpha'");
    part.options[key] = value;
  }
  told_where(entry.value(), [&] { return edit_at({alias, part.options}, "x"); });
  return part;
}

Part read_edit_part(Section& entry) {
  Part part;
  part.options = entry.rest();
  told_where(entry.value(), [&] { return parse_edit(part.options); });
  return part;
}

Part read_part(Section& entry) {
  return entry.has("operator") ? read_edit_part(entry) : read_alias_part(entry);
}

std::vector<Part> read_parts(const Value& list) {
  std::vector<Part> parts;
  for (const Value& item : list.items()) {
    Section entry(item);
    if (!entry.has("operator") && !entry.has("site"))
      item.refuse(item.what(),
                  " is no edit: it has neither 'operator' (beside 'where') nor 'site' (beside 'op')");
    parts.push_back(read_part(entry));
  }
  return parts;
}

Request read_request(const Value& value) {
  Section entry(value);
  Request request;
  const Value id = entry.get("id");
  request.id = id.text();
  if (!is_id(request.id)) id.refuse_type("at most 80 letters, digits, '_', '-', '.' and '+'");
  request.label = request.id;
  entry.maybe("label", [&](const Value& label) { request.label = label.text(); });
  if (!entry.has("edits")) {
    request.parts = {read_alias_part(entry)};
    return request;
  }
  request.parts = read_parts(entry.get("edits"));
  if (request.parts.empty()) value.refuse("condition '", request.id, "' has no edits");
  entry.finish();
  return request;
}

std::vector<Request> read_conditions(const Value& list) {
  std::vector<Request> requests;
  std::set<std::string> ids = {"baseline"};
  for (const Value& item : list.items()) {
    requests.push_back(read_request(item));
    if (!ids.insert(requests.back().id).second)
      item.refuse("the id '", requests.back().id, "' is used twice (the baseline's is 'baseline')");
  }
  return requests;
}

void read_amounts(Section& entry, Design& design) {
  entry.maybe("sizes", [&](const Value& sizes) {
    for (const Value& size : sizes.items_or_single()) design.sizes.push_back(size.integer(1, kMaxLayers));
  });
  entry.maybe("among", [&](const Value& among) { design.among = texts(among); });
  entry.maybe("top", [&](const Value& top) { design.top = top.integer(2, 100); });
  entry.maybe("permutations", [&](const Value& permutations) {
    design.permutations = permutations.integer(2, 10000);
    if (design.permutations % 2 != 0)
      permutations.refuse_type("even, because each order is paired with its reverse,");
  });
  entry.maybe("alphas", [&](const Value& alphas) {
    for (const Value& alpha : alphas.items_or_single()) design.alphas.push_back(alpha.number(1e-6, 1));
  });
}

Alias read_site(const Value& site) {
  return told_where(site, [&] { return find_alias(site.text()); });
}

// One entry of `designs`; `sites` and `phases` make several designs of it.
void read_design(const Value& value, std::vector<Design>& designs) {
  Section entry(value);
  Design design;
  design.design = entry.get("design").one_of(design_names());
  std::vector<std::string> sites;
  entry.maybe("site", [&](const Value& site) { sites = {read_site(site).name}; });
  entry.maybe("sites", [&](const Value& list) {
    for (const Value& site : list.items()) sites.push_back(read_site(site).name);
  });
  if (sites.empty()) value.refuse(value.what(), " names no site; give 'site' or 'sites', such as mixer.zero");
  entry.maybe("kind", [&](const Value& kind) { design.kind = kind.text(); });
  read_amounts(entry, design);
  entry.maybe("options", [&](const Value& options) {
    if (!options.json().is_object()) options.refuse_type("an object of an edit's keys");
    design.options = options.json();
  });
  std::vector<Json> phases = {design.options};
  entry.maybe("phases", [&](const Value& list) {
    if (design.options.contains("phase")) list.refuse("'options' name a phase and 'phases' name others");
    phases.clear();
    for (const std::string& name : texts(list)) {
      phases.push_back(design.options);
      if (name != "always") phases.back()["phase"] = name;
    }
    if (phases.empty()) list.refuse("'phases' names no phase");
  });
  entry.finish();
  complete(design);
  for (const std::string& site : sites)
    for (const Json& options : phases) {
      told_where(value, [&] { return edit_at({find_alias(site), options}, "x"); });
      design.site = site;
      design.options = options;
      designs.push_back(design);
    }
}

void read_sweep(const Value& value, std::vector<Design>& designs) {
  Section sweep(value);
  for (const Value& site : sweep.get("sites").items()) {
    Design design;
    design.design = "single";
    design.site = read_site(site).name;
    told_where(site, [&] { return edit_at({find_alias(design.site), {}}, "x"); });
    designs.push_back(design);
  }
  sweep.maybe("order", [](const Value& order) { order.one_of({"wavefront"}); });
  sweep.finish();
}

Controls read_controls(const Value& value) {
  Section section(value);
  Controls controls;
  controls.targets = texts(section.get("for"));
  section.maybe("draws",
                [&](const Value& draws) { controls.draws = draws.integer(kLeastDraws, kMostDraws); });
  section.maybe("match", [&](const Value& match) {
    controls.match.clear();
    for (const Value& item : match.items_or_single()) {
      const std::string name = item.one_of({"count", "params", "depth"});
      const Match found = name == "count" ? Match::count : name == "params" ? Match::params : Match::depth;
      if (std::find(controls.match.begin(), controls.match.end(), found) != controls.match.end())
        item.refuse(item.what(), " names '", name, "' a second time");
      controls.match.push_back(found);
    }
    if (controls.match.empty()) match.refuse_type("at least one of count, params, depth");
  });
  section.maybe("tolerance", [&](const Value& tolerance) { controls.tolerance = tolerance.number(0, 1); });
  section.finish();
  return controls;
}

std::string located(const std::string& file, const std::string& folder) {
  const std::filesystem::path path(file);
  return folder.empty() || path.is_absolute()
             ? file
             : (std::filesystem::path(folder) / path).lexically_normal().string();
}

std::vector<std::string> files(const Value& value, const std::string& folder) {
  std::vector<std::string> all;
  for (const std::string& file : texts(value)) all.push_back(located(file, folder));
  return all;
}

// A task with its files located; what else it says is read by parse_task (tasks.h).
Json located_task(const Value& value, const std::string& folder) {
  Json task = value.json();
  if (task.is_string()) return located(task.get<std::string>(), folder);
  if (!task.is_object()) value.refuse_type("a file's name or an object");
  for (const char* key : {"file", "fewshot_file"})
    if (task.contains(key) && task[key].is_string())
      task[key] = located(task[key].get<std::string>(), folder);
  return task;
}

Reference read_reference(const Value& value, const std::string& folder) {
  Section section(value);
  Reference reference;
  reference.data = located(section.get("data").text(), folder);
  section.maybe("tokens", [&](const Value& tokens) { reference.tokens = tokens.integer(1, kMaxLength); });
  section.finish();
  return reference;
}

Scoring read_score(const Value& value, const std::string& folder) {
  Section section(value);
  Scoring score;
  section.maybe("nll", [&](const Value& nll) { score.nll = files(nll, folder); });
  section.maybe("tasks", [&](const Value& tasks) {
    for (const Value& task : tasks.items_or_single()) score.tasks.push_back(located_task(task, folder));
  });
  section.maybe("lengths", [&](const Value& lengths) {
    for (const Value& length : lengths.items_or_single())
      score.lengths.push_back(length.integer(2, kMaxLength));
  });
  section.maybe("remembrance", [&](const Value& cuts) {
    for (const Value& at : cuts.items_or_single()) score.remembrance.push_back(at.integer(1, kMaxLength));
  });
  section.maybe("scored", [&](const Value& scored) { score.scored = scored.number(1e-6, 1); });
  section.maybe("documents", [&](const Value& documents) {
    score.documents = documents.text();
    const bool field = score.documents.starts_with("jsonl:") && score.documents.size() > 6;
    if (!field) documents.one_of({"line", "blank", "heading", "jsonl:FIELD"});
  });
  section.finish();
  return score;
}

Statistics read_stats(const Value& value) {
  Section section(value);
  Statistics stats;
  section.maybe("cluster", [&](const Value& cluster) {
    stats.cluster = cluster.one_of({"document", "item"});
  });
  section.maybe("boot", [&](const Value& boot) { stats.boot = boot.integer(100, kMaxBoot); });
  section.maybe("adjust", [&](const Value& adjust) {
    Section of(adjust);
    const std::vector<std::string> methods = {"holm", "bh", "none"};
    of.maybe("confirmatory", [&](const Value& method) { stats.confirmatory = method.one_of(methods); });
    of.maybe("sweep", [&](const Value& method) { stats.sweep = method.one_of(methods); });
    of.finish();
  });
  section.finish();
  return stats;
}

Declared read_declared(const Value& value) {
  Section section(value);
  Declared plan;
  section.maybe("confirmatory", [&](const Value& list) {
    for (const Value& item : list.items_or_single()) plan.confirmatory.push_back(item.text());
  });
  section.maybe("stop_rule", [&](const Value& rule) { plan.stop_rule = rule.one_of({"none", "anytime"}); });
  section.finish();
  return plan;
}

Json to_json(const Part& part) {
  if (part.alias.empty()) return part.options;
  const auto dot = part.alias.find('.');
  Json json = {{"site", part.alias.substr(0, dot)}, {"op", part.alias.substr(dot + 1)}};
  Json where = Json::object();
  if (!part.kind.empty()) where["kind"] = part.kind;
  if (!part.layers.empty()) where["layers"] = part.layers;
  for (const auto& [key, value] : part.options.items()) {
    const bool scope = std::find(std::begin(kScope), std::end(kScope), key) != std::end(kScope);
    (scope ? where : json)[key == "strength" ? "alpha" : key] = value;
  }
  if (!where.empty()) json["where"] = std::move(where);
  return json;
}

Json to_json(const Request& request) {
  Json json = {{"id", request.id}, {"label", request.label}};
  if (request.parts.size() == 1 && !request.parts[0].alias.empty()) {
    json.update(to_json(request.parts[0]));
    return json;
  }
  for (const Part& part : request.parts) json["edits"].push_back(to_json(part));
  return json;
}

Json to_json(const Design& design) {
  Json json = {{"design", design.design}, {"site", design.site}};
  if (!design.kind.empty()) json["kind"] = design.kind;
  if (!design.sizes.empty()) json["sizes"] = design.sizes;
  if (!design.among.empty()) json["among"] = design.among;
  if (design.top != 0) json["top"] = design.top;
  if (design.permutations != 0) json["permutations"] = design.permutations;
  if (!design.alphas.empty()) json["alphas"] = design.alphas;
  if (!design.options.empty()) json["options"] = design.options;
  return json;
}

Json to_json(const Controls& controls) {
  Json match = Json::array();
  for (const Match m : controls.match) match.push_back(name_of(m));
  return {{"for", controls.targets},
          {"draws", controls.draws},
          {"match", std::move(match)},
          {"tolerance", controls.tolerance}};
}

template <class T>
Json list_of(const std::vector<T>& values) {
  Json list = Json::array();
  for (const T& value : values) list.push_back(to_json(value));
  return list;
}

void check_layers(const Part& part, const Components& components) {
  for (const int layer : part.layers)
    if (layer >= components.blocks)
      fail("'", part.alias, "' names layer ", layer, ", but the model has layers 0 to ",
           components.blocks - 1);
}

}  // namespace

Study parse_study(const Document& document, const std::string& folder) {
  Section spec{Value(document)};
  Study study;
  spec.maybe("name", [&](const Value& name) { study.name = name.text(); });
  spec.maybe("model", [&](const Value& model) { study.model = located(model.text(), folder); });
  spec.maybe("baseline", [&](const Value& baseline) {
    Section section(baseline);
    section.maybe("mode", [&](const Value& mode) { study.baseline = mode.one_of({"exact", "fast"}); });
    section.finish();
  });
  spec.maybe("reference", [&](const Value& value) { study.reference = read_reference(value, folder); });
  spec.maybe("conditions", [&](const Value& list) { study.conditions = read_conditions(list); });
  spec.maybe("sweep", [&](const Value& value) { read_sweep(value, study.designs); });
  spec.maybe("designs", [&](const Value& list) {
    for (const Value& item : list.items()) read_design(item, study.designs);
  });
  spec.maybe("controls", [&](const Value& value) { study.controls = read_controls(value); });
  spec.maybe("score", [&](const Value& value) { study.score = read_score(value, folder); });
  spec.maybe("stats", [&](const Value& value) { study.stats = read_stats(value); });
  spec.maybe("plan", [&](const Value& value) { study.plan = read_declared(value); });
  spec.maybe("seed",
             [&](const Value& seed) { study.seed = static_cast<std::uint64_t>(seed.integer(0, INT64_MAX)); });
  spec.finish();
  if (study.conditions.empty() && study.designs.empty() && study.score.remembrance.empty())
    spec.value().refuse("a study needs 'conditions', 'sweep', 'designs' or 'remembrance' of its 'score'");
  return study;
}

Json to_json(const Study& s) {
  Json json = {{"name", s.name},
               {"baseline", {{"mode", s.baseline}}},
               {"conditions", list_of(s.conditions)},
               {"designs", list_of(s.designs)},
               {"score",
                {{"nll", s.score.nll},
                 {"tasks", s.score.tasks},
                 {"lengths", s.score.lengths},
                 {"remembrance", s.score.remembrance},
                 {"scored", s.score.scored},
                 {"documents", s.score.documents}}},
               {"stats",
                {{"cluster", s.stats.cluster},
                 {"boot", s.stats.boot},
                 {"adjust", {{"confirmatory", s.stats.confirmatory}, {"sweep", s.stats.sweep}}}}},
               {"plan", {{"confirmatory", s.plan.confirmatory}, {"stop_rule", s.plan.stop_rule}}},
               {"seed", s.seed}};
  if (!s.model.empty()) json["model"] = s.model;
  if (!s.reference.data.empty())
    json["reference"] = {{"data", s.reference.data}, {"tokens", s.reference.tokens}};
  if (!s.controls.targets.empty()) json["controls"] = to_json(s.controls);
  return json;
}

std::vector<Part> parse_parts(const Document& document) { return read_parts(Value(document)); }

Resolved resolve(const Part& part, const Model& model, const Components& components) {
  if (part.alias.empty()) return {nullptr, {}, {parse_edit(part.options)}};
  check_layers(part, components);
  const Grain grain = part.kind.empty() ? Grain::whole : Grain::by_kind;
  const auto pool =
      std::make_shared<Pool>(pool_of(model, components, {find_alias(part.alias), part.options}, grain));
  std::vector<int> members = places_of_kind(*pool, components, part.kind);
  if (members.empty())
    fail("'", part.alias, "' has no place of kind '", part.kind, "' in model '", model.data().origin,
         "'; its kinds are ", joined(kinds_of(*pool)));
  if (!part.layers.empty())
    std::erase_if(members, [&](int i) {
      return !std::binary_search(part.layers.begin(), part.layers.end(),
                                 pool->places[static_cast<std::size_t>(i)].block);
    });
  if (members.empty())
    fail("'", part.alias, "'", part.kind.empty() ? "" : cat(" of kind '", part.kind, "'"),
         " has no place in layers ", part.layers.front(), " to ", part.layers.back(), " that were named");
  Resolved resolved{pool, members, {}};
  for (const int i : members) resolved.edits.push_back(pool->edits[static_cast<std::size_t>(i)]);
  return resolved;
}

EditList edits_of(const std::vector<Part>& parts, const Model& model) {
  EditList all;
  std::unique_ptr<const Components> components;  // only parts of a site need the model's blocks
  for (const Part& part : parts) {
    if (!part.alias.empty() && !components) components = std::make_unique<Components>(components_of(model));
    static const Components none;
    const EditList edits = resolve(part, model, components ? *components : none).edits;
    all.insert(all.end(), edits.begin(), edits.end());
  }
  return all;
}

}  // namespace plait::ablate
