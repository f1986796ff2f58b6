#include "tools/ablate/fields.h"

#include <algorithm>

namespace plait::ablate {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
  return all;
}

}  // namespace

Fields::Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
  if (!json_.is_object()) refuse("an object is expected, not ", json_.type_name());
}

const Json* Fields::find(const std::string& key) {
  known_.push_back(key);
  const auto found = json_.find(key);
  return found == json_.end() ? nullptr : &*found;
}

const Json& Fields::value(const std::string& key) {
  const Json* found = find(key);
  if (!found) refuse("'", key, "' is missing");
  return *found;
}

std::string Fields::text(const std::string& key) {
  const Json& json = value(key);
  if (!json.is_string()) refuse("'", key, "' is ", json.dump(), ", not a text");
  return json.get<std::string>();
}

std::string Fields::text_or(const std::string& key, const std::string& fallback) {
  return has(key) ? text(key) : (find(key), fallback);
}

std::vector<std::string> Fields::texts(const std::string& key) {
  const Json& json = value(key);
  if (!json.is_array()) refuse("'", key, "' is ", json.dump(), ", not a list of texts");
  std::vector<std::string> all;
  for (const Json& entry : json) {
    if (!entry.is_string()) refuse("'", key, "' holds ", entry.dump(), ", which is no text");
    all.push_back(entry.get<std::string>());
  }
  return all;
}

std::vector<Json> Fields::one_or_list(const std::string& key) {
  const Json& json = value(key);
  if (!json.is_array()) return {json};
  if (json.empty()) refuse("'", key, "' is an empty list");
  return {json.begin(), json.end()};
}

std::vector<Index> Fields::integers(const std::string& key, Index low) {
  std::vector<Index> all;
  for (const Json& entry : one_or_list(key)) {
    if (!entry.is_number_integer() || entry < low)
      refuse("'", key, "' is ", entry.dump(), ", not a whole number from ", low);
    if (entry > std::numeric_limits<std::int32_t>::max())
      refuse("'", key, "' is ", entry.dump(), ", above ", std::numeric_limits<std::int32_t>::max());
    all.push_back(entry.get<Index>());
  }
  return all;
}

Index Fields::integer_or(const std::string& key, Index fallback, Index low, Index high) {
  const Json* json = find(key);
  if (!json) return fallback;
  if (!json->is_number_integer() || *json < low || *json > high)
    refuse("'", key, "' is ", json->dump(), ", not a whole number of ", low, " to ", high);
  return json->get<Index>();
}

std::vector<double> Fields::numbers(const std::string& key, double low, double high) {
  std::vector<double> all;
  for (const Json& entry : one_or_list(key)) {
    if (!entry.is_number() || !(entry >= low) || !(entry <= high))
      refuse("'", key, "' is ", entry.dump(), ", not a number of ", low, " to ", high);
    all.push_back(entry.get<double>());
  }
  return all;
}

std::size_t Fields::choice(const std::string& key, const std::vector<std::string>& choices) {
  const std::string chosen = text_or(key, choices[0]);
  const auto found = std::find(choices.begin(), choices.end(), chosen);
  if (found == choices.end()) refuse("'", key, "' is '", chosen, "'; it is one of ", joined(choices));
  return static_cast<std::size_t>(found - choices.begin());
}

void Fields::finish() const {
  for (const auto& [key, value] : json_.items())
    if (std::find(known_.begin(), known_.end(), key) == known_.end())
      refuse("unknown key '", key, "'; known here are ", joined(known_));
}

}  // namespace plait::ablate
