// plait convert as users and scripts meet it.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"
#include "tests/checkpoint.h"
#include "tests/cli/program.h"
#include "weights/model_file.h"

namespace plait {
namespace {

using namespace testing;

std::string source(const std::string& name, const Checkpoint& checkpoint) {
  checkpoint.write(file(name));
  return name;
}

TEST(ConvertVerb, SaysWhatItMade) {
  const std::string folder = source("falcon", tiny_falcon_h1(Tie::own));
  const Json json = plait("convert " + folder + " falcon.h5 --json -").json();
  EXPECT_EQ(json["family"], "falcon_h1");
  EXPECT_EQ(json["nodes_by_kind"]["mamba2"], 3);
  EXPECT_EQ(json["multipliers"], "settings");
  EXPECT_EQ(json["dtype"], "as stored");
  const Json inspected = plait("inspect falcon.h5 --check --json -").json();
  EXPECT_EQ(inspected["sha256"], json["sha256"]);
  EXPECT_EQ(inspected["parameters"], json["parameters"]);
  EXPECT_EQ(inspected["family"], "falcon_h1");
  EXPECT_NE(inspected["source"].get<std::string>().find("falcon_h1 checkpoint 'falcon'"), std::string::npos);
  const Outcome text = plait("convert " + folder + " falcon.h5");
  for (const char* part : {"falcon_h1", "mamba2", "softmax_attention", "no tokenizer"})
    EXPECT_NE(text.out.find(part), std::string::npos) << part;
  EXPECT_EQ(text.error, "");
  const Json folded = plait("convert falcon folded.h5 --fold-multipliers --dtype bf16 --json -").json();
  EXPECT_EQ(folded["multipliers"], "folded");
  EXPECT_EQ(folded["dtype"], "bf16");
  EXPECT_NE(folded["sha256"], json["sha256"]);
}

TEST(ConvertVerb, ThereAndBack) {
  source("qwen", tiny_qwen3_5(Tie::tied));
  const Json there = plait("convert qwen qwen.h5 --json -").json();
  EXPECT_GT(plait("inspect qwen.h5 --json -").json()["parameters_aside"]["mtp"], 0);
  EXPECT_EQ(plait("convert qwen.h5 qwen_back --quiet").code, 0);
  EXPECT_EQ(plait("convert qwen_back qwen_again.h5 --json -").json()["sha256"], there["sha256"]);
  expect_error(plait("convert qwen.h5 qwen_back --quiet"), 3, "not empty");
  expect_error(plait("convert qwen.h5 elsewhere --dtype f32"), 2, "--dtype");
  // Any model leaves, and reads and writes text when it comes back.
  EXPECT_EQ(plait("convert " + small() + " small_back --quiet").code, 0);
  EXPECT_EQ(plait("convert small_back small_again.h5 --json -").json()["sha256"],
            plait("inspect small.h5 --json -").json()["sha256"]);
  EXPECT_EQ(plait("run small_again.h5 --prompt a -n 8 --quiet").out,
            plait("run small.h5 --prompt a -n 8 --quiet").out);
}

TEST(ConvertVerb, WithoutATokenizerOnlyTokensAreTaken) {
  source("plain", tiny_qwen2(Tie::tied));
  text();
  ASSERT_EQ(plait("convert plain plain.h5 --quiet").code, 0);
  for (const char* arguments : {"run plain.h5 --prompt a", "score plain.h5 --text small.txt",
                                "tokenize plain.h5 a", "verify plain.h5 --text small.txt"})
    expect_error(plait(arguments), 3, "no tokenizer");
  write(file("plain_ids.txt"), "1 2 3 100 0 5");
  const Json json = plait("score plain.h5 --tokens plain_ids.txt --json -").json();
  EXPECT_EQ(json["scored"], 5);
  EXPECT_TRUE(json["bits_per_byte"].is_null());
  EXPECT_EQ(plait("verify plain.h5 -n 40 --threads 1 --quiet --json -").json()["passed"], true);
}

TEST(ConvertVerb, BadInputIsOneSentenceAndNoFile) {
  const int before = count_files();
  const auto refuse = [&](const std::string& arguments, const std::string& part) {
    SCOPED_TRACE(arguments);
    const int files = count_files();
    expect_error(plait("convert " + arguments), 3, part);
    EXPECT_EQ(count_files(), files);
  };
  refuse("nowhere x.h5", "nowhere");
  Checkpoint c = tiny_qwen2(Tie::tied);
  c.config["model_type"] = "gpt_neo\n\x7f";
  refuse(source("odd", c) + " x.h5", "model_type");
  c = tiny_qwen2(Tie::tied);
  c.retype("F16");
  refuse(source("odd", c) + " x.h5", "--dtype");
  refuse("odd x.h5 --dtype q4", "q4");
  refuse("odd missing/x.h5 --dtype f32", "missing/x.h5");
  write(file("odd/tokenizer_config.json"), "{}");
  write(file("odd/model.safetensors"), "short");
  refuse("odd x.h5", "5 bytes");
  EXPECT_EQ(count_files(), before + 1);
}

std::string tokenizer_json() { return read(PLAIT_SOURCE_DIR "/tests/text/cases/qwen2/tokenizer.json"); }

// The model with other compiled tables.
std::string with_tables(const std::string& model, const std::string& name, const std::string& tables) {
  const ModelData data = read_model_file(file(model));
  ModelWriter writer(file(name), data.card, "test");
  for (const auto& [node, tensors] : data.tensors)
    for (const auto& [tensor, value] : tensors) writer.add(node, tensor, value);
  for (const auto& [path, bytes] : data.tokenizer)
    writer.add_tokenizer_file(path, path == kCompiledTables ? tables : bytes);
  writer.finish();
  return name;
}

TEST(ConvertVerb, TokenizersAreCompiled) {
  source("speaking", tiny_qwen2(Tie::tied));
  write(file("speaking/tokenizer.json"), tokenizer_json());
  ASSERT_EQ(plait("convert speaking speaking.h5 --quiet").code, 0);
  const std::string tables = read_model_file(file("speaking.h5")).tokenizer.at(kCompiledTables);
  const auto json = make_tokenizer({{"tokenizer.json", tokenizer_json()}}, "file");
  const std::string text = "the quick lookup, 42<tool>";
  const auto tokens = [&](const std::string& model) {
    return plait("tokenize " + model + " '" + text + "' --json -").json()["tokens"];
  };
  EXPECT_EQ(tokens("speaking.h5"), json->encode(text));
  std::string changed = tables;
  changed[8] ^= 2;  // the version
  EXPECT_EQ(tokens(with_tables("speaking.h5", "older.h5", changed)), json->encode(text));
  changed = tables;
  changed[tables.size() / 2] ^= 1;
  expect_error(plait("tokenize " + with_tables("speaking.h5", "damaged.h5", changed) + " a"), 3,
               "damaged.h5: /tokenizer/compiled is damaged");
  expect_error(plait("tokenize " + with_tables("speaking.h5", "cut.h5", tables.substr(0, 100)) + " a"), 3,
               "cut.h5: /tokenizer/compiled is damaged");
  ASSERT_EQ(plait("convert speaking.h5 speaking_back --quiet").code, 0);
  EXPECT_EQ(read(file("speaking_back/tokenizer.json")), tokenizer_json());
  EXPECT_FALSE(exists("speaking_back/compiled"));
}

TEST(ConvertVerb, BadTokenizersAreOneSentenceAndNoFile) {
  source("mute", tiny_qwen2(Tie::tied));
  const Json good = Json::parse(tokenizer_json());
  const auto refuse = [&](const std::string& tokenizer, const std::string& part) {
    SCOPED_TRACE(part);
    write(file("mute/tokenizer.json"), tokenizer);
    const int files = count_files();
    expect_error(plait("convert mute mute.h5"), 3, "mute: tokenizer.json" + part);
    EXPECT_EQ(count_files(), files);
  };
  const auto changed = [&](const char* pointer, const Json& value) {
    Json json = good;
    json[Json::json_pointer(pointer)] = value;
    return json.dump();
  };
  refuse("{\"model\": ", " is not JSON: mistake at byte");
  refuse("{\"x\": 1e999}", " holds a number that is too large");
  refuse("[]", " must be a JSON object, found array");
  refuse(std::string(1000, '['), " is nested more than 64 deep");
  refuse(changed("/model/merges/0", "a"), ": model: merge 0 is not two tokens: \"a\"");
  refuse(changed("/model/merges/0", 7), ": model: merge 0 is not two tokens: 7");
  refuse(changed("/model/merges/0", {"a", "?!"}), ": model: merge 0: '?!' is not in the vocabulary");
  refuse(changed("/model/merges", "a b"), ": model: 'merges' must be a list, found string");
  refuse(changed("/model/vocab/twice", 5), ": model: tokens '#' and 'twice' both have id 5");
  refuse(changed("/model/vocab/a", "5"), ": model: token 'a' has the id \"5\", which is no whole number");
  refuse(changed("/model/vocab", Json::array()), ": model: 'vocab' must be a JSON object, found array");
  refuse(changed("/model/type", "Words"), ": model: this plait does not know the model 'Words'");
  refuse(changed("/normalizer", "NFC"), ": normalizer must be a JSON object, found string");
  refuse(changed("/normalizer/type", "Nmt"), ": normalizer: this plait does not know the normalizer 'Nmt'");
  refuse(changed("/pre_tokenizer/type", 1), ": pre_tokenizer: 'type' must be a text, found number");
  refuse(changed("/added_tokens/1/id", 0), ": added_tokens[1]: token '<|im_start|>' has id 0, but");
  refuse(changed("/decoder/wordy", 1), ": decoder: this plait does not know the key 'wordy'");
  write(file("mute/tokenizer.json"), tokenizer_json());
  EXPECT_EQ(plait("convert mute mute.h5 --quiet").code, 0);
}

TEST(ConvertVerb, AFullDiskLeavesNothing) {
  source("falcon", tiny_falcon_h1(Tie::own));
  ASSERT_EQ(plait("convert falcon falcon.h5 --quiet").code, 0);
  const int before = count_files();
  for (const char* arguments : {"convert falcon full.h5 --quiet", "convert falcon.h5 full --quiet"}) {
    const Outcome outcome = shell(cat("ulimit -f 64; \"$PLAIT\" ", arguments));
    EXPECT_EQ(outcome.code, 3) << outcome.error;
    EXPECT_NE(outcome.error.find("full"), std::string::npos) << outcome.error;
    EXPECT_EQ(count_files(), before);
  }
}

// A checkpoint that takes a while: one matrix of zeros, a sparse file.
void write_large(const std::string& folder) {
  constexpr std::uint64_t kVocab = 1 << 20, kWidth = 96;
  Checkpoint c;
  c.config = {{"model_type", "plait"},
              {"plait_card",
               {{"plait_format", 1},
                {"name", "large"},
                {"vocab", kVocab},
                {"width", kWidth},
                {"graph",
                 {{{"name", "embed"}, {"kind", "embedding"}},
                  {{"name", "head"}, {"kind", "head"}, {"inputs", {"embed"}}, {"tied", "embed"}}}}}}};
  c.write(folder);
  const std::uint64_t bytes = kVocab * kWidth * 4;
  const Json header = {
      {"embed.weight", {{"dtype", "F32"}, {"shape", {kVocab, kWidth}}, {"data_offsets", {0, bytes}}}}};
  const std::string head = safetensors_bytes(header.dump(), "");
  write(folder + "/model.safetensors", head);
  std::filesystem::resize_file(folder + "/model.safetensors", head.size() + bytes);
}

TEST(ConvertVerb, InterruptionsLeaveNothing) {
  write_large(file("large"));
  ASSERT_EQ(plait("convert large large.h5 --quiet").code, 0);
  for (const auto& [from, to] : {std::pair("large", "new.h5"), std::pair("large.h5", "new")}) {
    SCOPED_TRACE(to);
    const int before = count_files();
    const pid_t child = fork();
    if (child == 0) {
      if (chdir(folder().c_str()) != 0) _exit(99);
      execl(PLAIT_PROGRAM, "plait", "convert", from, to, "--quiet", nullptr);
      _exit(99);
    }
    for (int i = 0; i < 30000 && count_files() == before; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(count_files(), before + 1) << "the temporary file never came";
    kill(child, SIGINT);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 130);
    EXPECT_EQ(count_files(), before);
  }
  std::filesystem::remove_all(file("large.h5"));
}

}  // namespace
}  // namespace plait
