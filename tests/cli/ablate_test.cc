// plait ablate as a user runs it: folders, kills, refusals, the page behind it.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/program.h"
#include "tests/testing.h"

namespace plait::testing {
namespace {

// A byte model with two kinds of mixers; a text of some paragraphs.
std::string model() {
  const std::string path = file("study.h5");
  if (!exists("study.h5")) {
    write(file("study.json"), R"({
      "plait_format": 1, "name": "bytes", "vocab": 256, "width": 32, "pattern": ["d", "a", "d", "a"],
      "blocks": {
        "d": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "gated_delta_net", "num_heads": 2, "head_dim": 8,
               "value_head_dim": 8}, {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 48}],
        "a": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "softmax_attention", "num_heads": 2,
               "head_dim": 8}, {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 48}]},
      "final_norm": {"kind": "rms_norm"}, "head": {}})");
    EXPECT_EQ(plait("new " + file("study.json") + " " + path + " --seed 3").code, 0);
  }
  return path;
}

std::string paragraphs() {
  if (!exists("paragraphs.txt")) {
    std::string text;
    Numbers numbers(4);
    for (int p = 0; p < 40; ++p) {
      for (const Token t : numbers.tokens(400, 26)) text += static_cast<char>('a' + t);
      text += "\n\n";
    }
    write(file("paragraphs.txt"), text);
  }
  return file("paragraphs.txt");
}

std::string study(const std::string& run, const std::string& more = "") {
  return "ablate " + model() +
         " --sweep 'mixer.zero,mlp.zero,layer.skip;group:mixer.zero;dose:mixer.zero' --text " + paragraphs() +
         " --lengths 200 --boot 100 --seed 2 --out " + file(run) + " " + more;
}

TEST(Ablate, WritesAFolderThatReportReads) {
  const Outcome run = plait(study("run"));
  ASSERT_EQ(run.code, 0) << run.error;
  EXPECT_NE(run.out.find("plait report"), std::string::npos);
  EXPECT_NE(run.error.find("conditions"), std::string::npos);
  const Outcome page = plait("report " + file("run"));
  EXPECT_EQ(page.code, 0) << page.error;
  EXPECT_TRUE(exists("run/report.html"));
  // Twice the same folder: refused without --resume, and left as it is.
  const std::string results = read(file("run/results.csv"));
  expect_error(plait(study("run")), 3, "--resume");
  EXPECT_EQ(read(file("run/results.csv")), results);
}

// Killed at ten moments, resumed each time: the journal and the token scores are those of the undisturbed
// run.
TEST(Ablate, KilledRunsEndWithTheSameBytes) {
  ASSERT_EQ(plait(study("whole", "--threads 1")).code, 0);
  const Outcome killed = shell(
      "for wait in 0.05 0.1 0.2 0.3 0.15 0.25 0.12 0.4 0.08 0.35; do\n"
      "  timeout -s KILL $wait $PLAIT " +
      study("killed", "--threads 1 --resume --quiet") +
      " > /dev/null 2>&1\n"
      "done; $PLAIT " +
      study("killed", "--threads 1 --resume"));
  ASSERT_EQ(killed.code, 0) << killed.error;
  EXPECT_TRUE(read(file("killed/journal.0.bin")) == read(file("whole/journal.0.bin")));
  EXPECT_TRUE(read(file("killed/tokens.h5")) == read(file("whole/tokens.h5")));
  EXPECT_EQ(read(file("killed/conditions.csv")), read(file("whole/conditions.csv")));
  const auto work = [](const std::string& run) {
    Json cost = Json::parse(read(file(run + "/run.json"))).at("cost");
    cost.erase("seconds");
    return cost;
  };
  EXPECT_EQ(work("killed"), work("whole"));
}

TEST(Ablate, AFullDiskIsASentenceAndNothingHalfWritten) {
  const Outcome full = shell("ulimit -f 40; $PLAIT " + study("full"));
  EXPECT_EQ(full.code, 3) << full.error;
  EXPECT_NE(full.error.find("plait: error: "), std::string::npos);
  EXPECT_FALSE(exists("full/results.csv"));
  EXPECT_EQ(plait(study("full", "--resume")).code, 0) << "goes on once there is room";
}

// The reference paper's protocol on models of both its shapes: mixers in turn (Qwen3.5), branches side by
// side (Falcon-H1).
TEST(Ablate, TheReferenceProtocolIsOneCommand) {
  write(file("parallel.json"), R"({
    "plait_format": 1, "name": "parallel", "vocab": 256, "width": 32, "pattern": ["b", "b", "b", "b"],
    "blocks": {"b": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "branches": {
       "attention": {"kind": "softmax_attention", "num_heads": 2, "head_dim": 8},
       "ssm": {"kind": "mamba2", "num_heads": 2, "head_dim": 8, "state_dim": 8}}, "scales": [0.9, 0.25]},
      {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 48}]},
    "final_norm": {"kind": "rms_norm"}, "head": {}})");
  ASSERT_EQ(plait("new " + file("parallel.json") + " " + file("parallel.h5") + " --seed 1").code, 0);
  write(file("short.txt"), read(paragraphs()).substr(0, 1500));
  for (const std::string& subject : {model(), file("parallel.h5")}) {
    const std::string run = file("hybrid-" + std::filesystem::path(subject).stem().string());
    const Outcome outcome = plait("ablate " + subject + " --study hybrid2026 --text " + file("short.txt") +
                                  " --lengths 128 --boot 100 --out " + run);
    ASSERT_EQ(outcome.code, 0) << outcome.error;
    const std::string conditions = read(run + "/conditions.csv"), results = read(run + "/results.csv");
    for (const char* design : {",single,", ",group,", ",third,", ",cumulative,", ",random,"})
      EXPECT_NE(conditions.find(design), std::string::npos) << design << " of " << subject;
    EXPECT_NE(results.find("controls:count"), std::string::npos) << subject;
    EXPECT_EQ(plait("report " + run).code, 0);
  }
}

TEST(Ablate, ListsTheInterventions) {
  const Outcome list = plait("ablate --list");
  EXPECT_EQ(list.code, 0);
  for (const char* name : {"layer.skip", "mixer.zero", "state.reset", "decay.one", "erase.off"})
    EXPECT_NE(list.out.find(name), std::string::npos) << name;
}

TEST(Ablate, WrongUsageAndBadInputAreOneSentence) {
  expect_error(plait("ablate"), 2, "MODEL");
  expect_error(plait("ablate " + model()), 2, "--study");
  expect_error(plait("ablate " + model() + " --sweep mixer.zero --study full --text " + paragraphs()), 2,
               "one of");
  expect_error(plait("ablate " + model() + " --sweep mixer.zero --out " + file("x")), 3, "--text");
  expect_error(
      plait("ablate " + model() + " --sweep mixer.nonsense --text " + paragraphs() + " --out " + file("x")),
      3, "nonsense");
  expect_error(plait("ablate " + model() + " --study none --text " + paragraphs() + " --out " + file("x")), 3,
               "hybrid2026");
  expect_error(
      plait("ablate " + model() + " --sweep mixer.zero --text " + file("absent.txt") + " --out " + file("x")),
      3, "absent.txt");
  expect_error(plait("ablate " + model() + " --sweep mixer.zero --controls count:3 --text " + paragraphs() +
                     " --out " + file("x")),
               3, "199");
  write(file("bad.yaml"),
        "conditions:\n  - {id: a, site: mixer, op: zero, where: {kind: nothing}}\nscore: {nll: [" +
            paragraphs() + "]}\n");
  expect_error(plait("ablate " + model() + " " + file("bad.yaml") + " --out " + file("x")), 3, "nothing");
  EXPECT_FALSE(exists("x"));
}

}  // namespace
}  // namespace plait::testing
