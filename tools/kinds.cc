// plait kinds: the registered layer kinds, enough to write a card by hand.
#include <CLI/CLI.hpp>

#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "tools/describe.h"
#include "tools/option_search.h"
#include "tools/probe/probe.h"
#include "tools/program.h"
#include "tools/verbs.h"

namespace plait {
namespace {

std::string list_kinds() {
  std::vector<std::vector<std::string>> rows = {{"KIND", "GROUP", "SUMMARY"}};
  for (const auto& [key, kind] : Registry::builtin().kinds()) rows.push_back({key, kind.group, kind.summary});
  return table(rows, "lll");
}

std::string shape_text(const TensorSpec& spec) {
  return spec.shape_text.empty() ? to_string(spec.shape) : spec.shape_text;
}

std::string field_text(const Field& field) {
  std::string text = to_string(field.shape) + " " + name_of(field.dtype);
  if (field.grid > 0) text += cat(", grid ", field.grid);
  if (field.window > 0) text += cat(", window ", field.window);
  if (field.sinks > 0) text += cat(", sinks ", field.sinks);
  return text;
}

void section(std::string& text, const char* title, const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return;
  text += cat("\n", title, "\n");
  std::vector<std::vector<std::string>> indented;
  for (auto row : rows) {
    row[0] = "  " + row[0];
    indented.push_back(std::move(row));
  }
  text += table(indented, "llll");
}

// The rows of a table of settings.
std::vector<std::vector<std::string>> option_rows(const std::vector<Option>& options) {
  std::vector<std::vector<std::string>> rows;
  for (const Option& o : options) {
    // A long list of choices stands behind the meaning: it would make its column too wide.
    const bool wide = o.type.size() > 28;
    rows.push_back({o.name, wide ? "choice" : o.type, o.fallback, wide ? cat(o.help, ": ", o.type) : o.help});
  }
  return rows;
}

constexpr const char* kSettings = "settings (name, type, default, meaning)";

std::string show_kind(const Kind& kind, const KindDescription& d) {
  std::string text = cat(kind.key, " (", kind.group, "): ", kind.summary, "\nsource: ", kind.source,
                         "\ngraphs: ", name_of(kind.graphs), "\n");
  section(text, kSettings, option_rows(d.options));
  std::vector<std::vector<std::string>> rows;
  for (const TensorUse& t : d.tensors)
    rows.push_back({t.spec.name, shape_text(t.spec), t.required ? "" : "optional"});
  section(text, "tensors", rows);
  rows.clear();
  for (const Field& f : d.fields) rows.push_back({f.name, name_of(f.kind), field_text(f)});
  section(text, "state (of the examples, with width 64)", rows);
  rows.clear();
  for (const SiteSpec& s : d.sites) rows.push_back({name_of(s.site), operators_of(s)});
  section(text, "sites and their operators", rows);
  rows.clear();
  for (const std::string& e : kind.examples) rows.push_back({Json::parse(e).dump()});
  section(text, "examples of settings", rows);
  rows.clear();
  for (const std::string& e : kind.encoder_examples) rows.push_back({Json::parse(e).dump()});
  section(text, "examples in an encoder", rows);
  return text;
}

std::vector<std::string> keys_of(const FoundOption& option) {
  std::vector<std::string> keys;
  for (const Kind* kind : option.kinds) keys.push_back(kind->key);
  return keys;
}

std::string show_options(const std::string& key, const std::vector<FoundOption>& found) {
  std::string text = cat(key, " is no layer kind but an option:\n");
  for (const FoundOption& option : found) {
    text += cat("\n", joined(keys_of(option)), ": ", option.card, "\n");
    section(text, kSettings, option_rows(option.settings));
    if (!option.example.is_null())
      section(text, cat("example of ", option.kinds[0]->key).c_str(), {{option.example.dump()}});
  }
  return text;
}

Json option_json(const FoundOption& option) {
  return {{"kinds", keys_of(option)},
          {"card", option.card},
          {"options", to_json(option.settings)},
          {"example", option.example}};
}

struct Kinds {
  Common common;
  std::string kind;

  int run() const {
    const auto& all = Registry::builtin().kinds();
    if (!kind.empty() && !all.contains(kind)) return run_option();
    std::vector<const Kind*> kinds;
    if (!kind.empty())
      kinds.push_back(&Registry::builtin().find(kind));
    else
      for (const auto& [key, entry] : all) kinds.push_back(&entry);
    Json list = Json::array();
    if (!common.json.empty())
      for (const Kind* entry : kinds) list.push_back(to_json(*entry, describe(*entry)));
    answer(kind.empty() ? list_kinds() : show_kind(*kinds[0], describe(*kinds[0])), list);
    return kDone;
  }

 private:
  // What is no kind: an option, a probe or a mistake.
  int run_option() const {
    const std::vector<FoundOption> found = find_options(kind);
    Json list = Json::array();
    for (const FoundOption& option : found) list.push_back(option_json(option));
    if (!found.empty()) {
      answer(show_options(kind, found), list);
      return kDone;
    }
    std::vector<std::string> known = option_keys();
    for (const auto& [key, entry] : Registry::builtin().kinds()) known.push_back(key);
    for (const probe::Entry& entry : probe::probes()) {
      known.push_back(entry.name);
      if (entry.name == kind) {
        list.push_back({{"probe", entry.name}, {"summary", entry.help}});
        answer(cat(kind, " is no layer kind but a probe: ", entry.help, "\nplait probe ", kind, " --help\n"),
               list);
        return kDone;
      }
    }
    fail("there is no layer kind, option or probe '", kind.substr(0, 64), "'; did you mean '",
         nearest(kind, known), "'? (plait kinds lists the kinds)");
  }

  void answer(const std::string& text, const Json& json) const {
    if (!common.json_only()) print(text);
    flush_output();
    write_json(common, json);
  }
};

}  // namespace

void add_kinds(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Kinds>();
  CLI::App* verb =
      program.add_subcommand("kinds", "List the layer kinds, or show one: settings, tensors, state, sites");
  verb->add_option("KIND", args->kind, "Only this kind, in full; or an option of some kind: laser_attention");
  add_common(*verb, args->common, "not used");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
