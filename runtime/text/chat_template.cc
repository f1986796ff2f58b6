#include "runtime/text/chat_template.h"

#include <array>
#include <limits>

#include "runtime/base/error.h"

namespace plait {
namespace {

constexpr const char* kTemplateFile = "chat_template.jinja";
constexpr const char* kConfig = "tokenizer_config.json";
constexpr const char* kSpecialTokens = "special_tokens_map.json";
constexpr const char* kGeneration = "generation_config.json";
constexpr std::array kRoles = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};
constexpr std::array kReasoningNames = {"reasoning_content", "thinking", "reasoning"};

// The object in a file; an empty one if there is no such file.
OrderedJson object_in(const TokenizerFiles& files, const char* name, const std::string& origin) {
  const auto file = files.find(name);
  if (file == files.end()) return OrderedJson::object();
  const OrderedJson json = OrderedJson::parse(file->second, nullptr, false);
  if (!json.is_object()) fail(origin, ": tokenizer file '", name, "' is not a JSON object");
  return json;
}

// A token given as text or as an object with its text; nothing if it is null.
std::optional<std::string> token_text(const OrderedJson& token, const std::string& role,
                                      const std::string& where) {
  if (token.is_null()) return std::nullopt;
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string())
    return token["content"].get<std::string>();
  fail(where, " gives '", role, "' as neither text nor an object with a text 'content'");
}

OrderedJson without_nulls(const OrderedJson& message) {
  OrderedJson kept = OrderedJson::object();
  for (const auto& [key, value] : message.items())
    if (!value.is_null()) kept[key] = value;
  return kept;
}

// Templates read the text of reasoning as `reasoning_content` or as `thinking`.
OrderedJson with_reasoning(const OrderedJson& message) {
  for (const char* name : kReasoningNames) {
    if (!message.contains(name)) continue;
    OrderedJson named = OrderedJson::object();
    named["thinking"] = message[name];
    for (const auto& [key, value] : message.items()) named[key] = value;
    named["reasoning_content"] = message[name];
    return named;
  }
  return message;
}

Token token_id(const OrderedJson& id, const std::string& origin) {
  if (!id.is_number_integer() || id < 0 || id > std::numeric_limits<Token>::max())
    fail(origin, ": tokenizer file '", kGeneration, "' has an eos_token_id that is no token");
  return id.get<Token>();
}

}  // namespace

std::map<std::string, std::string> special_tokens_of(const TokenizerFiles& files, const std::string& origin) {
  std::map<std::string, std::string> tokens;
  for (const char* name : {kSpecialTokens, kConfig}) {  // the second wins
    const OrderedJson json = object_in(files, name, origin);
    for (const char* role : kRoles)
      if (json.contains(role))
        if (const auto text = token_text(json[role], role, cat(origin, ": tokenizer file '", name, "'")))
          tokens[role] = *text;
  }
  return tokens;
}

std::vector<Token> end_tokens_of(const TokenizerFiles& files, const std::string& origin) {
  const OrderedJson json = object_in(files, kGeneration, origin);
  std::vector<Token> ids;
  if (!json.contains("eos_token_id") || json["eos_token_id"].is_null()) return ids;
  const OrderedJson& given = json["eos_token_id"];
  if (!given.is_array()) return {token_id(given, origin)};
  for (const OrderedJson& id : given) ids.push_back(token_id(id, origin));
  return ids;
}

void ChatTemplate::add(const std::string& name, const std::string& text, const std::string& origin) {
  templates_[name] = std::make_shared<const jinja::Template>(text, origin);
}

std::optional<ChatTemplate> ChatTemplate::find(const TokenizerFiles& files, const std::string& origin) {
  ChatTemplate found;
  found.origin_ = origin;
  found.special_tokens_ = special_tokens_of(files, origin);
  if (const auto file = files.find(kTemplateFile); file != files.end()) {
    found.add("default", file->second, cat(origin, ": chat template"));
    return found;
  }
  const OrderedJson config = object_in(files, kConfig, origin);
  if (!config.contains("chat_template") || config["chat_template"].is_null()) return std::nullopt;
  const OrderedJson& given = config["chat_template"];
  if (given.is_string()) {
    found.add("default", given.get<std::string>(), cat(origin, ": chat template"));
    return found;
  }
  for (const OrderedJson& one : given) {
    const auto text = [&](const char* key) {
      return one.is_object() && one.contains(key) && one[key].is_string();
    };
    if (!text("name") || !text("template"))
      fail(origin, ": the chat templates in '", kConfig,
           "' are not a list of objects with 'name' and 'template'");
    const auto name = one["name"].get<std::string>();
    found.add(name, one["template"].get<std::string>(), cat(origin, ": chat template '", name, "'"));
  }
  return found;
}

const jinja::Template& ChatTemplate::chosen(const Conversation& conversation) const {
  if (!conversation.tools.is_null())
    if (const auto at = templates_.find("tool_use"); at != templates_.end()) return *at->second;
  const auto at = templates_.find("default");
  if (at == templates_.end())
    fail(origin_, ": none of its ", templates_.size(), " chat templates is named 'default'");
  return *at->second;
}

std::string ChatTemplate::render(const Conversation& conversation, GenerationPrompt prompt,
                                 std::time_t now) const {
  if (!conversation.messages.is_array() || conversation.messages.empty())
    fail("a conversation is a list of at least one message");
  OrderedJson variables = OrderedJson::object();
  OrderedJson messages = OrderedJson::array();
  for (const OrderedJson& message : conversation.messages) {
    if (!message.is_object()) fail("a message of the conversation is no object with 'role' and 'content'");
    messages.push_back(with_reasoning(without_nulls(message)));
  }
  variables["messages"] = std::move(messages);
  variables["tools"] = conversation.tools;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = prompt == GenerationPrompt::added;
  for (const auto& [role, text] : special_tokens_) variables[role] = text;
  for (const auto& [name, value] : conversation.options.items()) variables[name] = value;
  return chosen(conversation).render(variables, now);
}

}  // namespace plait
