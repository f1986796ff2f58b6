// plait run and run --chat on a converted checkpoint with a tokenizer.json: ids are not bytes, and a reply
// read back as text may have other ids than it was made of.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "runtime/base/error.h"
#include "tests/checkpoint.h"
#include "tests/cli/program.h"
#include "weights/model_file.h"
#include "weights/snapshot_file.h"

namespace plait {
namespace {

using namespace testing;

// ChatML; with `mark`, what an earlier reply says up to its last `mark` is dropped, as templates drop
// thoughts; with `counted`, the text begins with the number of messages.
constexpr const char* kTemplate = R"jinja({% if counted is defined -%}
Messages: {{ messages | length }}
{% endif %}
{%- if messages[0].role == 'system' or tools -%}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{%- if tools %}{% for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}{% endif %}<|im_end|>
{% endif %}
{%- for m in messages if m.role != 'system' %}
{{- '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' and mark is defined %}{{ m.content.split(mark)[-1] }}{% else %}{{ m.content }}{% endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})jinja";

// A small Qwen2 with the tokenizer of tests/text/cases/qwen2, converted; `generation` is its
// generation_config.json.
std::string converted(const std::string& name, const std::string& generation) {
  if (exists(name + ".h5")) return name + ".h5";
  constexpr Index kRows = 512;  // 504 tokens
  Checkpoint checkpoint = tiny_qwen2(Tie::tied);
  checkpoint.config["vocab_size"] = kRows;
  checkpoint.add("model.embed_tokens.weight", {kRows, 48}, "BF16");
  checkpoint.write(file(name));
  std::filesystem::copy(PLAIT_SOURCE_DIR "/tests/text/cases/qwen2/tokenizer.json",
                        file(name + "/tokenizer.json"));
  write(file(name + "/chat_template.jinja"), kTemplate);
  write(file(name + "/tokenizer_config.json"), R"({"eos_token": {"content": "<|im_end|>"}})");
  write(file(name + "/generation_config.json"), generation);
  const Outcome outcome = plait("convert " + name + " " + name + ".h5 --quiet");
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  return name + ".h5";
}

std::string talker() { return converted("talker", R"({"eos_token_id": [2, 0]})"); }

constexpr const char* kFlags = " -n 24 --seed 5 --threads 1 --numerics exact --json - --save ";

std::string turn(const std::string& role, const std::string& text) {
  return cat("<|im_start|>", role, "\n", text, "<|im_end|>\n");
}

// The chat whose stream is in chat_file said at its end what a run over `text` says, and both streams are the
// same to the last bit.
void expect_run_of(const std::string& text, const Json& last, const std::string& chat_file) {
  write(file("whole.txt"), text + "<|im_start|>assistant\n");
  const Json run =
      plait("run " + talker() + " --prompt-file whole.txt --no-special" + kFlags + "run_stream.h5").json();
  EXPECT_EQ(last["tokens"], run["tokens"]);
  EXPECT_EQ(last["text"], run["text"]);
  EXPECT_EQ(last["stopped"], run["stopped"]);
  EXPECT_EQ(last["prompt_tokens"], run["prompt_tokens"]);
  const auto model = load(file(talker()));
  const Snapshot a = load_snapshot(file(chat_file)), b = load_snapshot(file("run_stream.h5"));
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.logits, b.logits);
  EXPECT_EQ(Stream::restore(model, a).state_digest(), Stream::restore(model, b).state_digest());
}

TEST(ChatWithTokenizer, TheFirstTurnIsARunOfTheTemplatedText) {
  write(file("two_tools.json"), R"([{"name": "look", "z": 1, "a": "Käse"}, {"name": "listen"}])");
  const Json plain = plait("run " + talker() + " --chat --prompt 'Grüße 東京'" + kFlags + "chat.h5").json();
  expect_run_of(turn("user", "Grüße 東京"), plain["turns"][0], "chat.h5");
  const Json chat =
      plait("run " + talker() + " --chat --system 'Be brief.' --tools two_tools.json --prompt hello" +
            kFlags + "chat.h5")
          .json();
  const std::string system =
      "Be brief.\n{\"name\": \"look\", \"z\": 1, \"a\": \"Käse\"}\n{\"name\": \"listen\"}";
  expect_run_of(turn("system", system) + turn("user", "hello"), chat["turns"][0], "chat.h5");
  EXPECT_EQ(chat["turns"][0]["fed"], chat["turns"][0]["prompt_tokens"]);
}

TEST(ChatWithTokenizer, ALaterTurnIsARunOfTheWholeConversation) {
  const Json chat = shell("printf 'one\\ntwo, three\\n' | \"$PLAIT\" run " + talker() + " --chat --system s" +
                          kFlags + "chat.h5")
                        .json();
  ASSERT_EQ(chat["turns"].size(), 2u);
  const std::string reply = chat["turns"][0]["text"];
  expect_run_of(
      turn("system", "s") + turn("user", "one") + turn("assistant", reply) + turn("user", "two, three"),
      chat["turns"][1], "chat.h5");
  EXPECT_LT(chat["turns"][1]["fed"], chat["turns"][1]["prompt_tokens"]);
}

// The template takes back part of what the stream holds: it goes back before the reply and reads what is
// left.
TEST(ChatWithTokenizer, ATemplateMayRewriteEarlierTurns) {
  const Json first = plait("run " + talker() + " --chat --prompt one" + kFlags + "chat.h5").json();
  const std::string reply = first["turns"][0]["text"];
  const std::size_t cut = reply.find_first_of("abcdefghijklmnopqrstuvwxyz", reply.size() / 4);
  ASSERT_NE(cut, std::string::npos) << reply;
  const std::string mark(1, reply[cut]);
  const std::string rest = reply.substr(reply.rfind(mark) + 1);
  ASSERT_LT(rest.size(), reply.size());
  const Json chat = shell("printf 'one\\ntwo\\n' | \"$PLAIT\" run " + talker() +
                          " --chat --chat-option mark=" + mark + kFlags + "chat.h5")
                        .json();
  ASSERT_EQ(chat["turns"].size(), 2u);
  EXPECT_EQ(chat["messages"][1]["content"], reply);
  expect_run_of(turn("user", "one") + turn("assistant", rest) + turn("user", "two"), chat["turns"][1],
                "chat.h5");
  // Kept: the first turn and the beginning of the reply, which all conversations have.
  const auto kept = chat["turns"][1]["prompt_tokens"].get<int>() - chat["turns"][1]["fed"].get<int>();
  EXPECT_GE(kept, chat["turns"][0]["prompt_tokens"].get<int>());
  EXPECT_LT(kept, chat["turns"][0]["prompt_tokens"].get<int>() + 24);
}

// A change at the very beginning: the stream goes back behind everything it keeps.
TEST(ChatWithTokenizer, ATemplateMayChangeItsBeginning) {
  const Json chat = shell("printf 'one\\ntwo\\n' | \"$PLAIT\" run " + talker() +
                          " --chat --chat-option counted=1" + kFlags + "chat.h5")
                        .json();
  ASSERT_EQ(chat["turns"].size(), 2u);
  const std::string reply = chat["turns"][0]["text"];
  expect_run_of("Messages: 3\n" + turn("user", "one") + turn("assistant", reply) + turn("user", "two"),
                chat["turns"][1], "chat.h5");
  const auto kept = chat["turns"][1]["prompt_tokens"].get<int>() - chat["turns"][1]["fed"].get<int>();
  EXPECT_GT(kept, 0);
  EXPECT_LE(kept, 10);  // at most "Messages: "
}

TEST(Run, StopsAtTheEndTokens) {
  const std::string flags = " --prompt 'to be' --no-special" + std::string(kFlags) + "x.h5";
  const Json whole = plait("run " + talker() + flags + " --ignore-eos").json();
  EXPECT_EQ(whole["stopped"], "length");
  const auto tokens = whole["tokens"].get<std::vector<Token>>();
  ASSERT_EQ(tokens.size(), 24u);
  auto end = tokens.begin() + 2;  // the first token from there on that has not been before
  while (std::find(tokens.begin(), end, *end) != end) ++end;
  const std::string model = converted("talker_ends", cat("{\"eos_token_id\": [503, ", *end, "]}"));
  const Json stopped = plait("run " + model + flags).json();
  EXPECT_EQ(stopped["stopped"], "stop");
  EXPECT_EQ(stopped["tokens"], std::vector<Token>(tokens.begin(), end + 1));
  EXPECT_TRUE(whole["text"].get<std::string>().starts_with(stopped["text"].get<std::string>()));
  EXPECT_EQ(plait("run " + model + flags + " --ignore-eos").json()["tokens"], whole["tokens"]);
}

}  // namespace
}  // namespace plait
