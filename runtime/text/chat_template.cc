#include "runtime/text/chat_template.h"

#include <array>

#include "runtime/base/error.h"
#include "runtime/text/json_object.h"
#include "runtime/text/special_tokens.h"

namespace plait {
namespace {

constexpr const char* kTemplateFile = "chat_template.jinja";
constexpr const char* kConfig = "tokenizer_config.json";
constexpr std::array kReasoningNames = {"reasoning_content", "thinking", "reasoning"};

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

}  // namespace

void ChatTemplate::add(const std::string& name, const std::string& text, const std::string& origin) {
  templates_[name] = std::make_shared<const jinja::Template>(text, origin);
}

std::optional<ChatTemplate> ChatTemplate::find(const TokenizerFiles& files, const std::string& origin) {
  ChatTemplate found;
  found.origin_ = origin;
  found.special_texts_ = special_texts(files, origin);
  if (const auto file = files.find(kTemplateFile); file != files.end()) {
    found.add("default", file->second, cat(origin, ": chat template"));
    return found;
  }
  const auto config = tokenizer_object(files, kConfig, origin);
  if (!config.contains("chat_template") || config["chat_template"].is_null()) return std::nullopt;
  const nlohmann::json& given = config["chat_template"];
  if (given.is_string()) {
    found.add("default", given.get<std::string>(), cat(origin, ": chat template"));
    return found;
  }
  for (const nlohmann::json& one : given) {
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
  for (const auto& [role, text] : special_texts_) variables[role] = text;
  for (const auto& [name, value] : conversation.options.items()) variables[name] = value;
  return chosen(conversation).render(variables, now);
}

}  // namespace plait
