#include "tools/describe.h"

#include <algorithm>
#include <optional>

#include "runtime/base/error.h"

namespace plait {
namespace {

constexpr Index kWidth = 64;  // what the examples of a kind are written for
constexpr Index kVocab = 256;

struct Example {
  std::vector<Option> options;
  std::vector<TensorSpec> specs;
  std::unique_ptr<Layer> layer;
};

Parameters blank(const std::vector<TensorSpec>& specs) {
  std::map<std::string, Tensor> tensors;
  for (const TensorSpec& spec : specs)
    tensors[spec.name] =
        make_tensor(spec.shape, std::vector<float>(static_cast<std::size_t>(element_count(spec.shape))));
  return Parameters(std::move(tensors));
}

Example build(const Kind& kind, const std::string& settings, Index inputs, bool causal) {
  const Surroundings surroundings{kWidth, inputs, kVocab, kWidth, {}, causal};
  Example example;
  Config reading(kind.key, Json::parse(settings), surroundings);
  example.specs = kind.tensors(reading);
  example.options = reading.options();
  Config making(kind.key, Json::parse(settings), surroundings);
  example.layer = kind.make(making, blank(example.specs));
  return example;
}

// Sums take several inputs, sources none: the number of ports is the first one the kind accepts.
std::vector<Example> build_examples(const Kind& kind) {
  for (const Index inputs : {1, 2, 0}) {
    try {
      std::vector<Example> examples;
      for (const std::string& settings : kind.examples)
        examples.push_back(build(kind, settings, inputs, kind.graphs != Kind::Graphs::encoder));
      for (const std::string& settings : kind.encoder_examples)
        examples.push_back(build(kind, settings, inputs, false));
      const auto fits = [&](const Example& e) {
        return static_cast<Index>(e.layer->signature().inputs.size()) == inputs;
      };
      if (std::all_of(examples.begin(), examples.end(), fits)) return examples;
    } catch (const Error&) {
      if (inputs == 0) throw;
    }
  }
  fail("kind '", kind.key, "' accepts none of its own examples");
}

const std::string& example_settings(const Kind& kind, std::size_t example) {
  const std::size_t plain = kind.examples.size();
  return example < plain ? kind.examples[example] : kind.encoder_examples[example - plain];
}

template <class T, class Same>
T* find_if_same(std::vector<T>& items, Same same) {
  const auto found = std::find_if(items.begin(), items.end(), same);
  return found == items.end() ? nullptr : &*found;
}

}  // namespace

const char* name_of(Kind::Graphs graphs) {
  switch (graphs) {
    case Kind::Graphs::causal:
      return "causal";
    case Kind::Graphs::both:
      return "causal, encoder";
    case Kind::Graphs::encoder:
      return "encoder";
  }
  return "";
}

const char* name_of(Field::Kind kind) {
  switch (kind) {
    case Field::Kind::anchor:
      return "anchor";
    case Field::Kind::open:
      return "open";
    case Field::Kind::running:
      return "running";
    case Field::Kind::log:
      return "log";
  }
  return "";
}

namespace {

// A default that follows another setting reads "= num_heads": in every example that leaves it out it is what
// that setting says, and not the same everywhere.
void name_followed_settings(const Kind& kind, const std::vector<Example>& examples,
                            std::vector<Option>& options) {
  for (Option& option : options) {
    std::vector<std::pair<Json, Json>> cases;  // settings, default there
    for (std::size_t i = 0; i < examples.size(); ++i)
      for (const Option& o : examples[i].options)
        if (o.name == option.name)
          cases.emplace_back(Json::parse(example_settings(kind, i)), Json::parse(o.fallback, nullptr, false));
    const bool differs =
        std::any_of(cases.begin(), cases.end(), [&](const auto& c) { return c.second != cases[0].second; });
    if (!differs) continue;
    option.fallback = "computed";
    for (const auto& [key, value] : cases[0].first.items()) {
      const std::string& name = key;
      if (std::all_of(cases.begin(), cases.end(),
                      [&](const auto& c) { return c.first.value(name, Json()) == c.second; }))
        option.fallback = "= " + name;
    }
  }
}

}  // namespace

KindDescription describe(const Kind& kind) {
  KindDescription all;
  const std::vector<Example> examples = build_examples(kind);
  std::vector<std::size_t> uses;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Example& example = examples[i];
    all.examples.push_back({Json::parse(example_settings(kind, i)), example.options});
    for (const Option& option : example.options)
      if (!find_if_same(all.options, [&](const Option& o) { return o.name == option.name; }))
        all.options.push_back(option);
    for (const TensorSpec& spec : example.specs) {
      TensorUse* known =
          find_if_same(all.tensors, [&](const TensorUse& t) { return t.spec.name == spec.name; });
      if (!known) all.tensors.push_back({spec, false}), uses.push_back(0), known = &all.tensors.back();
      ++uses[static_cast<std::size_t>(known - all.tensors.data())];
    }
    for (const SiteSpec& site : sites_of(*example.layer))
      if (!find_if_same(all.sites, [&](const SiteSpec& s) { return s.site == site.site; }))
        all.sites.push_back(site);
    for (const Field& field : example.layer->fields())
      if (!find_if_same(all.fields, [&](const Field& f) { return f.name == field.name; }))
        all.fields.push_back(field);
  }
  name_followed_settings(kind, examples, all.options);
  for (std::size_t i = 0; i < uses.size(); ++i) all.tensors[i].required = uses[i] == examples.size();
  return all;
}

std::vector<SiteSpec> sites_of(const Layer& layer) {
  std::vector<SiteSpec> sites = {{Site::output, {Operator::zero, Operator::scale, Operator::skip}}};
  sites.insert(sites.end(), layer.sites().begin(), layer.sites().end());
  if (layer.fields().empty()) return sites;
  SiteSpec* state = find_if_same(sites, [](const SiteSpec& s) { return s.site == Site::state; });
  if (!state) sites.push_back({Site::state, {}}), state = &sites.back();
  for (const Operator op : {Operator::reset, Operator::reset_every, Operator::swap})
    if (std::find(state->operators.begin(), state->operators.end(), op) == state->operators.end())
      state->operators.push_back(op);
  return sites;
}

std::string operators_of(const SiteSpec& site) {
  std::string text;
  for (const Operator op : site.operators) text += std::string(text.empty() ? "" : ", ") + name_of(op);
  return text;
}

Json to_json(const SiteSpec& site) {
  Json operators = Json::array();
  for (const Operator op : site.operators) operators.push_back(name_of(op));
  return {{"site", name_of(site.site)}, {"operators", std::move(operators)}};
}

Json to_json(const Field& field) {
  Json json = {{"name", field.name},
               {"kind", name_of(field.kind)},
               {"shape", field.shape},
               {"dtype", name_of(field.dtype)},
               {"bytes", static_cast<std::size_t>(field.width()) * bytes_of(field.dtype)}};
  if (field.grid > 0) json["grid"] = field.grid;
  if (field.kind == Field::Kind::log) json["window"] = field.window, json["sinks"] = field.sinks;
  return json;
}

namespace {

// "4" -> 4, "required" -> "required": defaults are JSON texts or one of two words.
Json default_value(const std::string& fallback) {
  Json value = Json::parse(fallback, nullptr, false);
  return value.is_discarded() ? Json(fallback) : value;
}

}  // namespace

Json to_json(const std::vector<Option>& options) {
  Json json = Json::array();
  for (const Option& o : options)
    json.push_back(
        {{"name", o.name}, {"type", o.type}, {"default", default_value(o.fallback)}, {"help", o.help}});
  return json;
}

Json to_json(const Kind& kind, const KindDescription& d) {
  Json json = {{"kind", kind.key},
               {"group", kind.group},
               {"summary", kind.summary},
               {"source", kind.source},
               {"graphs", name_of(kind.graphs)}};
  for (const char* key : {"tensors", "sites", "fields", "examples", "encoder_examples"})
    json[key] = Json::array();
  json["options"] = to_json(d.options);
  for (const TensorUse& t : d.tensors)
    json["tensors"].push_back(
        {{"name", t.spec.name},
         {"shape", t.spec.shape_text.empty() ? to_string(t.spec.shape) : t.spec.shape_text},
         {"required", t.required},
         {"matrix", t.spec.matrix}});
  for (const SiteSpec& s : d.sites) json["sites"].push_back(to_json(s));
  for (const Field& f : d.fields) json["fields"].push_back(to_json(f));
  for (const std::string& e : kind.examples) json["examples"].push_back(Json::parse(e));
  for (const std::string& e : kind.encoder_examples) json["encoder_examples"].push_back(Json::parse(e));
  return json;
}

std::size_t birth_bytes(std::span<const Field> fields) { return State(fields).bytes(); }

namespace {

std::size_t row_bytes(const Field& field) {
  return static_cast<std::size_t>(field.width()) * bytes_of(field.dtype);
}

}  // namespace

std::size_t log_bytes_per_token(std::span<const Field> fields) {
  std::size_t bytes = 0;
  for (const Field& field : fields)
    if (field.kind == Field::Kind::log && field.window == 0) bytes += row_bytes(field);
  return bytes;
}

std::size_t window_bytes(std::span<const Field> fields) {
  std::size_t bytes = 0;
  for (const Field& field : fields)
    if (field.kind == Field::Kind::log && field.window > 0)
      bytes += row_bytes(field) * static_cast<std::size_t>(field.window + field.sinks);
  return bytes;
}

}  // namespace plait
