// A conversation to the text its model was trained on: the model's own chat template, rendered as
// transformers' apply_chat_template does.
#pragma once

#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/text/jinja.h"
#include "runtime/text/tokenizer.h"

namespace plait {

using jinja::OrderedJson;

// What a template is given.
struct Conversation {
  OrderedJson messages = OrderedJson::array();  // objects: role, content, tool_calls, reasoning_content, ..
  OrderedJson tools;                            // list of JSON schemas, or null
  OrderedJson options = OrderedJson::object();  // further variables by name, e.g. enable_thinking
};

enum class GenerationPrompt { none, added };  // the text with which the assistant's turn begins

// Immutable; shared by threads.
class ChatTemplate {
 public:
  // The template of a model's tokenizer files: chat_template.jinja, or `chat_template` in
  // tokenizer_config.json (text, or a list of named ones, of which "tool_use" is for conversations with
  // tools), with the special tokens those files name. Nothing if there is no template. Throws Error naming
  // `origin` and the file for anything malformed.
  static std::optional<ChatTemplate> find(const TokenizerFiles& files, const std::string& origin);

  // As apply_chat_template: keys of a message whose value is null are left out, reasoning is passed under all
  // of its names, special tokens are variables (bos_token, ..) that `options` may override. Throws Error when
  // there is no message, when a message is no object, and what Template::render throws.
  std::string render(const Conversation& conversation, GenerationPrompt prompt, std::time_t now) const;

 private:
  ChatTemplate() = default;
  void add(const std::string& name, const std::string& text, const std::string& origin);
  const jinja::Template& chosen(const Conversation& conversation) const;

  std::string origin_;
  std::map<std::string, std::shared_ptr<const jinja::Template>> templates_;  // by name
  std::map<std::string, std::string> special_texts_;                         // "bos_token": its text
};

}  // namespace plait
