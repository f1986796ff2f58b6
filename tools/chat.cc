#include "tools/chat.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <ctime>
#include <iostream>

#include "runtime/base/error.h"
#include "runtime/text/chat_template.h"
#include "weights/json_text.h"

namespace plait {
namespace {

constexpr Index kPromptPiece = 512;  // tokens between two looks at the budget; changes no bit

volatile std::sig_atomic_t interrupted = 0;

// While it lives, SIGINT ends the reply and not the program.
class ReplyInterrupt {
 public:
  ReplyInterrupt() {
    interrupted = 0;
    struct sigaction action = {};
    action.sa_handler = [](int) { interrupted = 1; };
    action.sa_flags = SA_RESTART;  // output goes on
    sigaction(SIGINT, &action, &before_);
  }
  ~ReplyInterrupt() { sigaction(SIGINT, &before_, nullptr); }
  ReplyInterrupt(const ReplyInterrupt&) = delete;
  ReplyInterrupt& operator=(const ReplyInterrupt&) = delete;

 private:
  struct sigaction before_ = {};
};

OrderedJson ordered_json(const std::string& text, const std::string& what) {
  parse_json(text, what);  // for its sentences; it does not keep the order of keys
  return OrderedJson::parse(text);
}

Conversation beginning(const ChatSettings& settings) {
  Conversation conversation;
  if (!settings.system.empty())
    conversation.messages.push_back({{"role", "system"}, {"content", settings.system}});
  if (!settings.tools.empty()) {
    conversation.tools = ordered_json(read_file(settings.tools), cat("'", settings.tools, "'"));
    if (!conversation.tools.is_array()) fail("'", settings.tools, "' is not a JSON list of tools");
  }
  for (const std::string& option : settings.options) {
    const std::size_t at = option.find('=');
    if (at == 0 || at == std::string::npos)
      throw UsageError("--chat-option wants NAME=VALUE, not '" + option + "'");
    const std::string text = option.substr(at + 1);
    const OrderedJson value = OrderedJson::parse(text, nullptr, false);
    conversation.options[option.substr(0, at)] = value.is_discarded() ? OrderedJson(text) : value;
  }
  return conversation;
}

ChatTemplate template_of(const Model& model) {
  auto found = ChatTemplate::find(model.data().tokenizer, model.data().origin);
  if (!found)
    fail("model '", model.data().origin, "' has no chat template; without --chat it goes on from a text");
  return *std::move(found);
}

struct Turn {
  std::string text;
  std::vector<Token> tokens;
  std::size_t prompt_tokens = 0, fed = 0;
  const char* stopped = "length";
};

class Talk {
 public:
  Talk(const Chat& chat, std::shared_ptr<const Model> model, Stream& stream, const Sampler& sampler)
      : chat_(chat),
        model_(std::move(model)),
        stream_(stream),
        sampler_(sampler),
        template_(template_of(stream.model())),
        conversation_(beginning(chat.settings)) {}

  void turn(const std::string& question) {
    conversation_.messages.push_back({{"role", "user"}, {"content", to_valid_utf8(question)}});
    Turn turn;
    feed_conversation(turn);
    reply(turn);
    conversation_.messages.push_back({{"role", "assistant"}, {"content", turn.text}});
    turns_.push_back({{"prompt_tokens", turn.prompt_tokens},
                      {"fed", turn.fed},
                      {"tokens", turn.tokens},
                      {"text", turn.text},
                      {"stopped", turn.stopped}});
    if (!chat_.prefixes) return;
    turns_.back()["store"] = chat_.prefixes->found_json();
    chat_.prefixes->say(chat_.common);
  }

  Json result() const {
    return {{"model", stream_.model().card().name},
            {"model_sha256", stream_.model().digest()},
            {"messages", Json::parse(conversation_.messages.dump())},
            {"turns", turns_},
            {"position", stream_.position()},
            {"sampler", to_json(sampler_.settings())},
            {"store", chat_.prefixes ? chat_.prefixes->tally_json() : Json()},
            {"numerics", name_of(stream_.options().compute.numerics)},
            {"arithmetic", stream_.arithmetic()}};
  }

 private:
  std::vector<Token> rendered(GenerationPrompt prompt) const {
    // The template writes the special tokens itself.
    return chat_.tokenizer.encode(template_.render(conversation_, prompt, std::time(nullptr)),
                                  Specials::without);
  }

  static std::size_t common(std::span<const Token> a, std::span<const Token> b) {
    return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  }

  void feed(std::span<const Token> tokens) {
    while (!tokens.empty()) {
      Index piece = std::min(kPromptPiece, static_cast<Index>(tokens.size()));
      if (chat_.prefixes) piece = std::min(piece, chat_.prefixes->until_stop(stream_.position()));
      stream_.feed(tokens.first(static_cast<std::size_t>(piece)));
      tokens = tokens.subspan(static_cast<std::size_t>(piece));
      store();
      check_budget(chat_.common, stream_.model(), stream_.state_bytes());
    }
  }

  // At the places that a store wants.
  void store() {
    if (chat_.prefixes && chat_.prefixes->at_stop(stream_.position())) chat_.prefixes->save(stream_);
  }

  // Goes back to the first `kept` tokens: to the copy kept before the last reply where that lies before them,
  // otherwise by the stream's own rollback.
  void go_back(std::size_t kept) {
    const std::size_t held = stream_.tokens().size();
    if (kept == held) return;
    if (before_reply_ && before_reply_->tokens().size() <= kept) {
      const std::vector<Token> again(stream_.tokens().begin() + before_reply_->position(),
                                     stream_.tokens().begin() + static_cast<std::ptrdiff_t>(kept));
      stream_ = before_reply_->fork();
      feed(again);
      return;
    }
    stream_.rollback(static_cast<Index>(held - kept));
  }

  void feed_conversation(Turn& turn) {
    const std::vector<Token> tokens = rendered(GenerationPrompt::added);
    if (tokens.empty()) fail("the chat template renders the conversation as no text");
    // The last token is fed: after a rollback there are no logits. A store has them.
    std::size_t kept = std::min(common(stream_.tokens(), tokens), tokens.size() - 1);
    if (chat_.prefixes && chat_.prefixes->extend(stream_, model_, tokens, static_cast<Index>(kept)))
      kept = stream_.tokens().size();
    else
      go_back(kept);
    // What the next turn repeats surely ends where the prompt of the reply begins.
    const std::size_t mark = std::max(kept, common(tokens, rendered(GenerationPrompt::none)));
    const std::span<const Token> all(tokens);
    feed(all.subspan(kept, mark - kept));
    before_reply_ = stream_.fork();
    feed(all.subspan(mark));
    turn.prompt_tokens = tokens.size();
    turn.fed = tokens.size() - kept;
  }

  void reply(Turn& turn) {
    const ReplyInterrupt interrupt;
    Printer printer(chat_.tokenizer, chat_.stops, !chat_.common.json_only());
    for (Index i = 0; i < chat_.count; ++i) {
      if (interrupted) {
        turn.stopped = "interrupt";
        break;
      }
      const Token token =
          sampler_.draw(stream_.logits(), stream_.options().id, stream_.position(), stream_.tokens());
      turn.tokens.push_back(token);
      const bool stopped = !printer.push(token);
      stream_.feed(std::span(&token, 1), Origin::sampled);
      store();
      if (stopped) {
        turn.stopped = "stop";
        break;
      }
    }
    if (chat_.prefixes) chat_.prefixes->save(stream_);  // the next prompt begins like this
    check_budget(chat_.common, stream_.model(), stream_.state_bytes());
    printer.finish();
    turn.text = printer.text();
  }

  const Chat& chat_;
  std::shared_ptr<const Model> model_;
  Stream& stream_;
  const Sampler& sampler_;
  ChatTemplate template_;
  Conversation conversation_;
  std::optional<Stream> before_reply_;
  Json turns_ = Json::array();
};

}  // namespace

void add_chat_options(CLI::App& verb, ChatSettings& settings) {
  verb.add_option("--system", settings.system, "With --chat: the system message")->type_name("TEXT");
  verb.add_option("--tools", settings.tools, "With --chat: tools the model may call, a JSON list of schemas")
      ->type_name("FILE");
  verb.add_option(
          "--chat-option", settings.options,
          "With --chat: a variable of the template, e.g. enable_thinking=false; may be given several times")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
}

int converse(const Chat& chat, std::shared_ptr<const Model> model, Stream& stream, const Sampler& sampler) {
  Talk talk(chat, std::move(model), stream, sampler);
  if (chat.question) {
    talk.turn(*chat.question);
  } else {
    const bool terminal = ::isatty(STDIN_FILENO) && !chat.common.quiet;
    std::string line;
    for (;;) {
      if (terminal) std::fputs("> ", stderr);
      if (!std::getline(std::cin, line)) break;
      if (!line.empty()) talk.turn(line);
    }
  }
  write_json(chat.common, talk.result());
  return kDone;
}

}  // namespace plait
