// Conversations against transformers' apply_chat_template (make_chat_goldens.py).
#include "runtime/text/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>

namespace plait {
namespace {

ChatTemplate found(const TokenizerFiles& files) {
  auto one = ChatTemplate::find(files, "m.h5");
  if (!one) fail("there is no template");
  return *std::move(one);
}

Conversation conversation_of(const OrderedJson& json) {
  Conversation conversation;
  conversation.messages = json["messages"];
  if (json.contains("tools")) conversation.tools = json["tools"];
  if (json.contains("options")) conversation.options = json["options"];
  return conversation;
}

TEST(ChatTemplate, RendersAsTransformers) {
  std::ifstream file(PLAIT_SOURCE_DIR "/tests/text/chat_goldens.json", std::ios::binary);
  ASSERT_TRUE(file);
  const OrderedJson golden = OrderedJson::parse(file);
  ASSERT_GE(golden["cases"].size(), 100u);
  for (const OrderedJson& one : golden["cases"]) {
    const ChatTemplate chat =
        found({{"chat_template.jinja", golden["templates"][one["template"].get<std::string>()]},
               {"tokenizer_config.json", golden["special_tokens"].dump()}});
    const Conversation conversation =
        conversation_of(golden["conversations"][one["conversation"].get<std::string>()]);
    const auto prompt = one["prompt"] ? GenerationPrompt::added : GenerationPrompt::none;
    const std::string shown = one.dump();
    if (one.contains("expected")) {
      try {
        EXPECT_EQ(chat.render(conversation, prompt, 0), one["expected"].get<std::string>()) << shown;
      } catch (const Error& error) {
        ADD_FAILURE() << error.what() << "\n" << shown;
      }
    } else {
      EXPECT_THROW(chat.render(conversation, prompt, 0), Error) << shown;
    }
  }
}

TEST(ChatTemplate, IsFoundWhereTransformersFindsIt) {
  EXPECT_FALSE(ChatTemplate::find({}, "m.h5"));
  EXPECT_FALSE(ChatTemplate::find({{"tokenizer_config.json", R"({"chat_template": null})"}}, "m.h5"));
  Conversation one;
  one.messages.push_back({{"role", "user"}, {"content", "x"}});
  const auto text = [&](const TokenizerFiles& files) {
    return found(files).render(one, GenerationPrompt::none, 0);
  };
  EXPECT_EQ(text({{"tokenizer_config.json",
                   R"({"chat_template": "{{ bos_token }}c", "bos_token": {"content": "<s>"}})"}}),
            "<s>c");
  EXPECT_EQ(text({{"chat_template.jinja", "f{{ eos_token }}"},
                  {"special_tokens_map.json", R"({"eos_token": "</s>"})"},
                  {"tokenizer_config.json", R"({"chat_template": "c"})"}}),
            "f</s>");
  const TokenizerFiles named = {
      {"tokenizer_config.json",
       R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})"}};
  EXPECT_EQ(text(named), "d");
  one.tools = OrderedJson::array();
  EXPECT_EQ(text(named), "t");
  EXPECT_THROW(found({{"tokenizer_config.json", "[]"}}), Error);
  EXPECT_THROW(found({{"tokenizer_config.json", R"({"chat_template": [{"name": 1}]})"}}), Error);
}

}  // namespace
}  // namespace plait
