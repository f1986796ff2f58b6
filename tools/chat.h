// plait run --chat: a conversation by the model's chat template.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/run/sampler.h"
#include "runtime/run/stream.h"
#include "tools/prefixes.h"
#include "tools/printer.h"
#include "tools/program.h"

namespace plait {

struct ChatSettings {
  std::string system, tools;         // text, JSON file
  std::vector<std::string> options;  // NAME=VALUE for the template
  bool given() const { return !system.empty() || !tools.empty() || !options.empty(); }
};
// Declares --system, --tools, --chat-option.
void add_chat_options(CLI::App& verb, ChatSettings& settings);

struct Chat {
  const Common& common;
  const ChatSettings& settings;
  const Tokenizer& tokenizer;
  Stops stops;
  Index count;                          // tokens a reply has at most
  std::optional<std::string> question;  // the only turn; without it every line of standard input is one
  Prefixes* prefixes = nullptr;         // where prompts are looked up and stored
};

// Each turn renders the whole conversation and feeds what the stream does not hold yet; where the text
// differs from what it holds, the stream goes back to the common beginning, exactly, or on from what a store
// has of it, if that is more. SIGINT during a reply
// ends that reply. Returns the exit code. Throws Error if the model has no chat template.
int converse(const Chat& chat, std::shared_ptr<const Model> model, Stream& stream, const Sampler& sampler);

}  // namespace plait
