// plait convert as users and scripts meet it.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "runtime/base/error.h"
#include "tests/checkpoint.h"
#include "tests/cli/program.h"

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
