#include "runtime/text/special_tokens.h"

#include "runtime/base/error.h"
#include "runtime/text/json_object.h"

namespace plait {
namespace {

nlohmann::json config(const TokenizerFiles& files, const std::string& name, const std::string& origin) {
  const auto file = files.find(name);
  if (file == files.end()) return nlohmann::json::object();
  auto json = parse_tokenizer_json(file->second, cat(origin, ": ", name));
  if (!json.is_object()) fail(origin, ": ", name, " must be a JSON object");
  return json;
}

// An id or a list of ids.
std::vector<Token> ids_of(const nlohmann::json& json, const std::string& where, Index limit) {
  std::vector<Token> ids;
  const auto add = [&](const nlohmann::json& id) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= limit)
      fail(where, " must be an id below ", limit, ", found ", id.dump().substr(0, 40));
    ids.push_back(id.get<Token>());
  };
  if (json.is_array())
    for (const auto& id : json) add(id);
  else if (!json.is_null())
    add(json);
  return ids;
}

}  // namespace

SpecialTokens find_special_tokens(const TokenizerFiles& files, const std::string& origin, Index limit,
                                  const std::function<std::optional<Token>(const std::string&)>& id_of) {
  const auto generation = config(files, "generation_config.json", origin);
  const auto tokenizer = config(files, "tokenizer_config.json", origin);
  const auto find = [&](const std::string& name) {
    const auto ids = generation.find(name + "_id");
    if (ids != generation.end() && !ids->is_null())
      return ids_of(*ids, cat(origin, ": generation_config.json: '", name, "_id'"), limit);
    auto value = tokenizer.value(name, nlohmann::json());
    if (value.is_object()) value = value.value("content", nlohmann::json());
    if (!value.is_string()) return std::vector<Token>();
    const auto id = id_of(value.get<std::string>());
    if (!id)
      fail(origin, ": tokenizer_config.json: '", name, "' is '", value.get<std::string>().substr(0, 64),
           "', which is no token");
    return std::vector<Token>{*id};
  };
  SpecialTokens found;
  found.eos = find("eos_token");
  const auto bos = find("bos_token");
  if (!bos.empty()) found.bos = bos.front();
  return found;
}

}  // namespace plait
