#include "tools/option_search.h"

#include <algorithm>
#include <tuple>

#include "runtime/base/error.h"
#include "runtime/base/words.h"

namespace plait {
namespace {

constexpr const char* kList = "list of strings";

// A choice has its names in the type, a list in its help: words joined by |.
std::vector<std::string> choices_of(const Option& option) {
  for (const char* type : {"integer", "number", "boolean", "string", "object", "list of numbers"})
    if (option.type == type) return {};
  if (option.type != kList) return split(option.type, '|');
  std::vector<std::string> choices;
  for (std::string& word : split(option.help, ' ')) {
    if (word.find('|') == std::string::npos) continue;
    if (word.back() == ',') word.pop_back();
    for (const std::string& name : split(word, '|')) choices.push_back(name);
  }
  return choices;
}

// "query.form" -> "query", "form"
std::pair<std::string, std::string> parent_and_leaf(const std::string& path) {
  const std::size_t dot = path.rfind('.');
  if (dot == std::string::npos) return {"", path};
  return {path.substr(0, dot), path.substr(dot + 1)};
}

struct Match {
  Option option;
  std::string choice;  // of the option; empty: the option itself
};

std::vector<Match> matches_by_name(const KindDescription& kind, const std::string& key) {
  std::vector<Match> matches;
  for (const Option& option : kind.options) {
    const std::vector<std::string> choices = choices_of(option);
    if (std::find(choices.begin(), choices.end(), key) != choices.end()) matches.push_back({option, key});
  }
  // An object named like a choice holds that choice's settings.
  for (const Option& option : kind.options)
    if (parent_and_leaf(option.name).second == key && (matches.empty() || option.type != "object"))
      matches.push_back({option, ""});
  return matches;
}

// A help text may end with a choice's name in the literature: "; sigmoid: sigmoid_gate". Empty if it does not.
std::string literature_name(const Option& option, const std::string& choice) {
  const std::string before = cat("; ", choice, ": ");
  const std::size_t begin = option.help.rfind(before);
  if (begin == std::string::npos) return "";
  const std::string name = option.help.substr(begin + before.size());
  return name.find(' ') == std::string::npos ? name : "";
}

std::vector<Match> matches_by_help(const KindDescription& kind, const std::string& key) {
  std::vector<Match> matches;
  for (const Option& option : kind.options)
    for (const std::string& choice : choices_of(option))
      if (literature_name(option, choice) == key) matches.push_back({option, choice});
  return matches;
}

// What settings say of an option: its value, or null where they leave it out.
Json value_in(const Json& settings, const std::string& path) {
  const std::size_t dot = path.find('.');
  const auto found = settings.find(path.substr(0, dot));
  if (found == settings.end()) return nullptr;
  return dot == std::string::npos ? *found : value_in(*found, path.substr(dot + 1));
}

bool reads(const ExampleUse& example, const std::string& option) {
  return std::any_of(example.options.begin(), example.options.end(),
                     [&](const Option& o) { return o.name == option; });
}

bool uses(const ExampleUse& example, const Match& match) {
  Json value = value_in(example.settings, match.option.name);
  if (match.choice.empty()) return !value.is_null();
  if (value.is_null() && reads(example, match.option.name))
    value = Json::parse(match.option.fallback, nullptr, false);
  if (value.is_array()) return std::find(value.begin(), value.end(), Json(match.choice)) != value.end();
  return value == Json(match.choice);
}

// Read with the choice and never without it.
bool comes_with(const KindDescription& kind, const Match& match, const std::string& option) {
  if (match.choice.empty()) return false;
  bool used = false;
  for (const ExampleUse& example : kind.examples) {
    if (reads(example, option) != uses(example, match)) return false;
    used = used || uses(example, match);
  }
  return used;
}

std::vector<Option> settings_of(const KindDescription& kind, const Match& match) {
  const auto& [parent, leaf] = parent_and_leaf(match.option.name);
  std::vector<Option> settings = {match.option};
  for (const Option& option : kind.options) {
    const std::string& name = option.name;
    if (name == match.option.name || option.type == "object") continue;
    const bool own = name.starts_with(match.option.name + ".") || name.starts_with(match.option.name + "_");
    const bool of_choice = !match.choice.empty() && name.starts_with(match.choice + ".");
    const bool beside = !parent.empty() && name.starts_with(parent + ".");
    if (own || of_choice || beside || comes_with(kind, match, name)) settings.push_back(option);
  }
  return settings;
}

std::string card_text(const Match& match) {
  std::string value = cat("\"", match.choice, "\"");
  if (match.choice.empty()) value = match.option.type == "object" ? "{..}" : match.option.type;
  if (!match.choice.empty() && match.option.type == kList) value = cat("[.., ", value, "]");
  auto [parent, leaf] = parent_and_leaf(match.option.name);
  for (;; std::tie(parent, leaf) = parent_and_leaf(parent)) {
    value = cat("\"", leaf, "\": ", value);
    if (parent.empty()) return value;
    value = cat("{", value, "}");
  }
}

bool same_settings(const std::vector<Option>& a, const std::vector<Option>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Option& x, const Option& y) {
    return x.name == y.name && x.type == y.type && x.fallback == y.fallback && x.help == y.help;
  });
}

Json shortest_use(const KindDescription& kind, const Match& match) {
  Json shortest;
  for (const ExampleUse& example : kind.examples)
    if (uses(example, match) &&
        (shortest.is_null() || example.settings.dump().size() < shortest.dump().size()))
      shortest = example.settings;
  return shortest;
}

}  // namespace

std::vector<FoundOption> find_options(const std::string& key) {
  std::vector<std::pair<const Kind*, KindDescription>> kinds;
  for (const auto& [name, kind] : Registry::builtin().kinds()) kinds.emplace_back(&kind, describe(kind));
  std::vector<FoundOption> all;
  for (const auto matches_in : {matches_by_name, matches_by_help}) {
    for (const auto& [kind, description] : kinds) {
      for (const Match& match : matches_in(description, key)) {
        FoundOption found = {{kind}, card_text(match), settings_of(description, match), {}};
        const auto known = std::find_if(all.begin(), all.end(), [&](const FoundOption& f) {
          return f.card == found.card && same_settings(f.settings, found.settings);
        });
        if (known != all.end()) {
          known->kinds.push_back(kind);
          continue;
        }
        found.example = shortest_use(description, match);
        all.push_back(std::move(found));
      }
    }
    if (!all.empty()) break;
  }
  return all;
}

std::vector<std::string> option_keys() {
  std::vector<std::string> keys;
  for (const auto& [name, kind] : Registry::builtin().kinds())
    for (const Option& option : describe(kind).options) {
      keys.push_back(parent_and_leaf(option.name).second);
      for (const std::string& choice : choices_of(option)) {
        keys.push_back(choice);
        if (const std::string named = literature_name(option, choice); !named.empty()) keys.push_back(named);
      }
    }
  return keys;
}

}  // namespace plait
