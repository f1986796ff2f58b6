#include "runtime/graph/config.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace plait {

Config::Config(std::string node, Json settings, Surroundings surroundings)
    : node_(std::move(node)), settings_(std::move(settings)), surroundings_(surroundings) {
  if (settings_.is_null()) settings_ = Json::object();
  if (!settings_.is_object()) refuse("settings must be an object, found ", settings_.dump());
}

Config::~Config() = default;

void Config::refuse_text(const std::string& message) const {
  throw Error(cat("node '", node_, "': ", message));
}

const Json* Config::take(const std::string& key, const std::string& type, const std::string& fallback,
                         const std::string& help) {
  if (std::find(read_.begin(), read_.end(), key) == read_.end()) {
    read_.push_back(key);
    options_.push_back({prefix_ + key, type, fallback, help});
  }
  const auto found = settings_.find(key);
  if (found == settings_.end()) {
    if (fallback == "required") refuse("setting '", prefix_, key, "' (", help, ") is missing");
    return nullptr;
  }
  return &*found;
}

namespace {

std::string number_text(double value) {
  if (std::isinf(value)) return value > 0 ? "infinity" : "-infinity";
  return Json(value).dump();
}

}  // namespace

Index Config::integer(const std::string& key, const std::string& help, Index low) {
  const Json* value = take(key, "integer", "required", help);
  if (!value->is_number_integer() || value->get<Index>() < low)
    refuse("setting '", prefix_, key, "' must be an integer of at least ", low, ", found ", value->dump());
  return value->get<Index>();
}

Index Config::integer_or(const std::string& key, Index fallback, const std::string& help, Index low) {
  const Json* value = take(key, "integer", std::to_string(fallback), help);
  if (!value) return fallback;
  if (!value->is_number_integer() || value->get<Index>() < low)
    refuse("setting '", prefix_, key, "' must be an integer of at least ", low, ", found ", value->dump());
  return value->get<Index>();
}

double Config::checked_number(const std::string& key, const Json& value, double low) const {
  if (!value.is_number()) refuse("setting '", prefix_, key, "' must be a number, found ", value.dump());
  const auto number = value.get<double>();
  if (std::abs(number) > std::numeric_limits<float>::max() ||
      (number != 0 && std::abs(number) < std::numeric_limits<float>::min()))
    refuse("setting '", prefix_, key, "' must be a number that f32 holds, found ", value.dump());
  if (number < low)
    refuse("setting '", prefix_, key, "' must be a number of at least ", low, ", found ", value.dump());
  return number;
}

double Config::number(const std::string& key, const std::string& help) {
  return checked_number(key, *take(key, "number", "required", help), std::numeric_limits<double>::lowest());
}

double Config::number_or(const std::string& key, double fallback, const std::string& help, double low) {
  const Json* value = take(key, "number", number_text(fallback), help);
  return value ? checked_number(key, *value, low) : fallback;
}

bool Config::boolean_or(const std::string& key, bool fallback, const std::string& help) {
  const Json* value = take(key, "boolean", fallback ? "true" : "false", help);
  if (!value) return fallback;
  if (!value->is_boolean())
    refuse("setting '", prefix_, key, "' must be true or false, found ", value->dump());
  return value->get<bool>();
}

int Config::choice(const std::string& key, std::initializer_list<const char*> choices,
                   const std::string& help) {
  std::string all;
  for (const char* name : choices) all.append(all.empty() ? "" : "|").append(name);
  const Json* value = take(key, all, Json(*choices.begin()).dump(), help);
  if (!value) return 0;
  int index = 0;
  for (const char* name : choices) {
    if (value->is_string() && value->get_ref<const std::string&>() == name) return index;
    ++index;
  }
  refuse("setting '", prefix_, key, "' must be one of ", all, ", found ", value->dump());
}

std::string Config::text_or(const std::string& key, const std::string& fallback, const std::string& help) {
  const Json* value = take(key, "string", Json(fallback).dump(), help);
  if (!value) return fallback;
  if (!value->is_string()) refuse("setting '", prefix_, key, "' must be a string, found ", value->dump());
  return value->get<std::string>();
}

std::vector<double> Config::numbers_or(const std::string& key, const std::vector<double>& fallback,
                                       const std::string& help) {
  const Json* value = take(key, "list of numbers", Json(fallback).dump(), help);
  if (!value) return fallback;
  const bool good = value->is_array() &&
                    std::all_of(value->begin(), value->end(), [](const Json& v) { return v.is_number(); });
  if (!good) refuse("setting '", prefix_, key, "' must be a list of numbers, found ", value->dump());
  for (const Json& number : *value) checked_number(key, number, std::numeric_limits<double>::lowest());
  return value->get<std::vector<double>>();
}

std::vector<std::string> Config::texts_or(const std::string& key, const std::vector<std::string>& fallback,
                                          const std::string& help) {
  const Json* value = take(key, "list of strings", Json(fallback).dump(), help);
  if (!value) return fallback;
  const bool good = value->is_array() &&
                    std::all_of(value->begin(), value->end(), [](const Json& v) { return v.is_string(); });
  if (!good) refuse("setting '", prefix_, key, "' must be a list of strings, found ", value->dump());
  return value->get<std::vector<std::string>>();
}

Config* Config::object(const std::string& key, const std::string& help) {
  const Json* value = take(key, "object", "absent", help);
  if (!value || value->is_null()) return nullptr;
  return &child(key, *value);
}

Config& Config::section(const std::string& key, const std::string& help) {
  const Json* value = take(key, "object", "{}", help);
  return child(key, value && !value->is_null() ? *value : Json::object());
}

Config& Config::child(const std::string& key, const Json& settings) {
  if (!settings.is_object())
    refuse("setting '", prefix_, key, "' must be an object, found ", settings.dump());
  auto made = std::make_unique<Config>(node_, settings, surroundings_);
  made->prefix_ = prefix_ + key + ".";
  children_.push_back(std::move(made));
  return *children_.back();
}

void Config::finish() const {
  for (const auto& child : children_) child->finish();
  for (const auto& [key, value] : settings_.items())
    if (std::find(read_.begin(), read_.end(), key) == read_.end())
      refuse("unknown setting '", prefix_, key, "' (value ", value.dump(), ")");
}

std::vector<Option> Config::options() const {
  std::vector<Option> all = options_;
  for (const auto& child : children_) {
    const auto nested = child->options();
    all.insert(all.end(), nested.begin(), nested.end());
  }
  return all;
}

}  // namespace plait
