// plait run --chat on a tiny model with bytes for tokens and a chat template of its own.
#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"
#include "tests/cli/program.h"
#include "weights/model_file.h"

namespace plait {
namespace {

using namespace testing;

constexpr const char* kTemplate =
    "{% if tools %}<tools>{{ tools|tojson }}</tools>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if think is defined %}{{ think }}{% endif %}{% endif %}";

// The small model with these files beside its byte tokenizer.
std::string model_with(const std::string& name, const TokenizerFiles& files) {
  if (exists(name)) return name;
  const ModelData data = read_model_file(file(small()));
  ModelWriter writer(file(name), data.card, "test");
  for (const auto& [node, tensors] : data.tensors)
    for (const auto& [tensor, value] : tensors) writer.add(node, tensor, value);
  for (const auto& [path, bytes] : ByteTokenizer().files()) writer.add_tokenizer_file(path, bytes);
  for (const auto& [path, bytes] : files) writer.add_tokenizer_file(path, bytes);
  writer.finish();
  return name;
}

std::string chat_model() {
  return model_with(
      "chat.h5", {{"chat_template.jinja", kTemplate}, {"tokenizer_config.json", R"({"eos_token": "<e>"})"}});
}

const std::string kFlags = " --threads 1 --seed 3 --json - ";

TEST(Chat, OneTurnIsARunOfTheRenderedText) {
  const Json chat =
      plait("run " + chat_model() + " --chat --system 'be brief' --prompt hello -n 12" + kFlags).json();
  const Json run =
      plait("run chat.h5 --prompt '<|system|>be brief<e><|user|>hello<e><|assistant|>' --stop '<e>' -n 12" +
            kFlags)
          .json();
  ASSERT_EQ(chat["turns"].size(), 1u);
  EXPECT_EQ(chat["turns"][0]["tokens"], run["tokens"]);
  EXPECT_EQ(chat["turns"][0]["text"], run["text"]);
  EXPECT_EQ(chat["turns"][0]["prompt_tokens"], run["prompt_tokens"]);
}

// A later turn gives what a stream gives that is fed the whole conversation anew, though only what is new is
// fed.
TEST(Chat, EveryTurnContinuesExactly) {
  const Json chat =
      shell("printf 'one\\ntwo\\n\\nthree\\n' | \"$PLAIT\" run " + chat_model() + " --chat -n 9" + kFlags)
          .json();
  ASSERT_EQ(chat["turns"].size(), 3u);
  std::string text;
  for (std::size_t i = 0; i < 3; ++i) {
    const Json& turn = chat["turns"][i];
    text += "<|user|>" + chat["messages"][2 * i]["content"].get<std::string>() + "<e><|assistant|>";
    write(file("whole.txt"), text);
    const Json run = plait("run chat.h5 --prompt-file whole.txt --stop '<e>' -n 9" + kFlags).json();
    EXPECT_EQ(turn["tokens"], run["tokens"]) << i;
    EXPECT_EQ(turn["prompt_tokens"], run["prompt_tokens"]);
    EXPECT_EQ(i == 0, turn["fed"] == turn["prompt_tokens"]);
    text += turn["text"].get<std::string>() + "<e>";
  }
}

// The same conversation again: every prompt comes from the store, and the replies are the same.
TEST(Chat, TurnsAreLookedUpAndStored) {
  const std::string talk =
      "printf 'one\\ntwo\\nthree\\n' | \"$PLAIT\" run " + chat_model() + " --chat -n 9" + kFlags;
  const Json plain = shell(talk).json();
  EXPECT_TRUE(plain["store"].is_null());
  const Json first = shell(talk + "--store talks").json(), again = shell(talk + "--store talks").json();
  EXPECT_EQ(first["store"]["stored"], 6) << "prompt and reply of each turn";
  EXPECT_EQ(again["store"]["stored"], 0);
  for (std::size_t i = 0; i < 3; ++i) {
    const Json &a = first["turns"][i], &b = again["turns"][i];
    for (const Json& turn : {a, b}) EXPECT_EQ(turn["tokens"], plain["turns"][i]["tokens"]) << i;
    EXPECT_EQ(a["fed"], plain["turns"][i]["fed"]) << "what the stream holds is not run again";
    EXPECT_EQ(b["store"]["hit"], b["prompt_tokens"]);
    EXPECT_EQ(b["fed"], 0);
    EXPECT_TRUE(b["store"]["miss"].is_null());
  }
  // Sampled tokens have a phase of their own; a store's have not.
  write(file("decode.json"), R"([{"where": "blocks.0.mixer", "operator": "zero", "phase": "decode"}])");
  const std::string edited = " --edits decode.json ";
  const Json alone = shell(talk + edited).json();
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(shell(talk + edited + "--store talks").json()["messages"], alone["messages"]) << i;
}

TEST(Chat, ToolsAndOptionsReachTheTemplate) {
  write(file("tools.json"), R"([{"z": 1, "a": "b"}])");
  const Json chat = plait("run " + chat_model() +
                          " --chat --tools tools.json --chat-option think=5 --prompt x -n 3" + kFlags)
                        .json();
  const std::string prompt = R"(<tools>[{"z": 1, "a": "b"}]</tools><|user|>x<e><|assistant|>5)";
  EXPECT_EQ(chat["turns"][0]["prompt_tokens"], prompt.size());
}

TEST(Chat, StopsAtTheEndTokens) {
  const std::string any = [] {
    std::string ids;
    for (int i = 0; i < 256; ++i) ids += cat(i > 0 ? "," : "", i);
    return "{\"eos_token_id\": [" + ids + "]}";
  }();
  model_with("ends.h5", {{"chat_template.jinja", kTemplate}, {"generation_config.json", any}});
  const Json chat = plait("run ends.h5 --chat --prompt x -n 5" + kFlags).json();
  EXPECT_EQ(chat["turns"][0]["tokens"].size(), 1u);
  EXPECT_EQ(chat["turns"][0]["text"], "");
  EXPECT_EQ(chat["turns"][0]["stopped"], "stop");
}

TEST(Chat, AnInterruptEndsTheReplyOnly) {
  const Outcome outcome = shell("printf 'x\\n' | timeout -s INT 1 \"$PLAIT\" run " + chat_model() +
                                " --chat -n 100000000 --stop never --temperature 0" + kFlags);
  EXPECT_EQ(outcome.code, 124) << "timeout's own code: it did send the signal; " << outcome.error;
  EXPECT_EQ(outcome.json()["turns"][0]["stopped"], "interrupt");
}

TEST(Chat, BadInputIsOneSentence) {
  expect_error(plait("run " + small() + " --chat --prompt x"), 3, "has no chat template");
  model_with("raises.h5", {{"chat_template.jinja", "{{ raise_exception('no, thanks') }}"}});
  expect_error(plait("run raises.h5 --chat --prompt x"), 3, "no, thanks");
  model_with("broken.h5", {{"chat_template.jinja", "a\n{% include 'b' %}"}});
  expect_error(plait("run broken.h5 --chat --prompt x"), 3, "line 2: the statement 'include'");
  expect_error(plait("run " + small() + " --system y --prompt x"), 2, "--chat");
  write(file("tools.json"), "{}");
  expect_error(plait("run " + chat_model() + " --chat --tools tools.json --prompt x"), 3, "not a JSON list");
}

}  // namespace
}  // namespace plait
