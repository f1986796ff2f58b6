#include "runtime/text/json_object.h"

#include "runtime/base/error.h"

namespace plait {
namespace {

constexpr int kMaxDepth = 64;

void check_depth(const std::string& text, const std::string& where) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) fail(where, " is nested more than ", kMaxDepth, " deep");
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

}  // namespace

JsonObject::JsonObject(const nlohmann::json& json, std::string where)
    : json_(json), where_(std::move(where)) {
  if (!json.is_object()) fail(where_, " must be a JSON object, found ", json.type_name());
}

bool JsonObject::has(const std::string& key) {
  read_.insert(key);
  const auto found = json_.find(key);
  return found != json_.end() && !found->is_null();
}

const nlohmann::json& JsonObject::at(const std::string& key) {
  if (!has(key)) fail(where_, " has no '", key, "'");
  return json_.at(key);
}

std::string JsonObject::text(const std::string& key) {
  const auto& value = at(key);
  if (!value.is_string()) fail(where_, ": '", key, "' must be a text, found ", value.type_name());
  return value.get<std::string>();
}

bool JsonObject::flag(const std::string& key) {
  const auto& value = at(key);
  if (!value.is_boolean()) fail(where_, ": '", key, "' must be true or false, found ", value.type_name());
  return value.get<bool>();
}

std::int64_t JsonObject::integer(const std::string& key, std::int64_t low, std::int64_t high) {
  const auto& value = at(key);
  const bool whole =
      value.is_number_integer() && !(value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX);
  if (!whole || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high)
    fail(where_, ": '", key, "' must be a whole number from ", low, " to ", high, ", found ",
         value.dump().substr(0, 40));
  return value.get<std::int64_t>();
}

const nlohmann::json& JsonObject::array(const std::string& key) {
  const auto& value = at(key);
  if (!value.is_array()) fail(where_, ": '", key, "' must be a list, found ", value.type_name());
  return value;
}

void JsonObject::finish() const {
  for (const auto& item : json_.items())
    if (!read_.contains(item.key()))
      fail(where_, ": this plait does not know the key '", item.key().substr(0, 64), "'");
}

nlohmann::json parse_tokenizer_json(const std::string& text, const std::string& where) {
  check_depth(text, where);
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    fail(where, " is not JSON: mistake at byte ", error.byte);
  } catch (const nlohmann::json::out_of_range&) {
    fail(where, " holds a number that is too large");
  }
}

nlohmann::json tokenizer_object(const TokenizerFiles& files, const std::string& name,
                                const std::string& origin) {
  const auto file = files.find(name);
  if (file == files.end()) return nlohmann::json::object();
  auto json = parse_tokenizer_json(file->second, cat(origin, ": ", name));
  if (!json.is_object()) fail(origin, ": ", name, " must be a JSON object, found ", json.type_name());
  return json;
}

}  // namespace plait
