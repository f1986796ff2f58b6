#include "runtime/text/special_tokens.h"

#include <array>

#include "runtime/base/error.h"
#include "runtime/text/json_object.h"

namespace plait {
namespace {

constexpr const char* kGeneration = "generation_config.json";
constexpr const char* kConfig = "tokenizer_config.json";
constexpr const char* kMap = "special_tokens_map.json";
constexpr std::array kRoles = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};

// A token given as text or as an object with its text; nothing if it is null.
std::optional<std::string> token_text(const nlohmann::json& token, const std::string& role,
                                      const std::string& where) {
  if (token.is_null()) return std::nullopt;
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string())
    return token["content"].get<std::string>();
  fail(where, " gives '", role, "' as neither text nor an object with a text 'content'");
}

// One id or a list of ids; none if there are none.
std::vector<Token> ids_of(const nlohmann::json& generation, const std::string& key, const std::string& origin,
                          Index limit) {
  std::vector<Token> ids;
  const auto add = [&](const nlohmann::json& id) {
    const bool whole = id.is_number_unsigned() && id.get<std::uint64_t>() < static_cast<std::uint64_t>(limit);
    if (!whole)
      fail(origin, ": ", kGeneration, ": '", key, "' must be an id below ", limit, ", found ",
           id.dump().substr(0, 40));
    ids.push_back(id.get<Token>());
  };
  const auto given = generation.value(key, nlohmann::json());
  if (given.is_array())
    for (const auto& id : given) add(id);
  else if (!given.is_null())
    add(given);
  return ids;
}

}  // namespace

std::map<std::string, std::string> special_texts(const TokenizerFiles& files, const std::string& origin) {
  std::map<std::string, std::string> texts;
  for (const char* name : {kMap, kConfig}) {  // the second wins
    const auto json = tokenizer_object(files, name, origin);
    for (const char* role : kRoles)
      if (json.contains(role))
        if (const auto text = token_text(json[role], role, cat(origin, ": tokenizer file '", name, "'")))
          texts[role] = *text;
  }
  return texts;
}

SpecialTokens find_special_tokens(const TokenizerFiles& files, const std::string& origin, Index limit,
                                  const std::function<std::optional<Token>(const std::string&)>& id_of) {
  const auto generation = tokenizer_object(files, kGeneration, origin);
  const auto texts = special_texts(files, origin);
  const auto text_of = [&](const char* role) {
    const auto text = texts.find(role);
    return text == texts.end() ? std::string() : text->second;
  };
  SpecialTokens found;
  found.eos = ids_of(generation, "eos_token_id", origin, limit);
  if (const auto eos = text_of("eos_token"); !eos.empty()) {
    if (const auto id = id_of(eos)) {
      std::erase(found.eos, *id);
      found.eos.insert(found.eos.begin(), *id);
    } else {
      found.eos_text = eos;
    }
  }
  const auto bos = ids_of(generation, "bos_token_id", origin, limit);
  if (!bos.empty()) found.bos = bos.front();
  if (const auto id = id_of(text_of("bos_token"))) found.bos = id;
  return found;
}

}  // namespace plait
