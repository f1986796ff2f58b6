// plait probe as a user meets it: the list, the files it writes, mistakes.
#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "tests/cli/program.h"

namespace plait {
namespace {

using namespace testing;

const char* const kOfModels[] = {"attention_maps", "attention_sinks", "attention_thermodynamics",
                                 "vertex_softmax"};

TEST(Probe, AloneListsThemAll) {
  const Outcome outcome = plait("probe");
  EXPECT_EQ(outcome.code, 0);
  for (const char* name : kOfModels) EXPECT_NE(outcome.out.find(name), std::string::npos) << name;
  EXPECT_NE(plait("probe vertex_softmax --help").out.find("--cache"), std::string::npos);
}

TEST(Probe, WritesTableJsonAndPictures) {
  small();
  text();
  for (const char* name : kOfModels) {
    SCOPED_TRACE(name);
    const std::string before = cat("probe ", name, " small.h5 --text small.txt --limit 40 ");
    const Outcome table = plait(before + "--json p.json --plot p.svg");
    ASSERT_EQ(table.code, 0) << table.error;
    EXPECT_NE(table.out.find("blocks."), std::string::npos);
    const Json json = Json::parse(read(file("p.json")));
    EXPECT_EQ(json["probe"], name);
    EXPECT_EQ(json["tokens"], 40);
    const std::string svg = read(file("p.svg"));
    EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    const Outcome only = plait(before + "--json - --plot p.html --threads 1");
    EXPECT_EQ(only.json(), json) << "threads change nothing";
    EXPECT_NE(read(file("p.html")).find("<figcaption>"), std::string::npos);
    for (const char* outside : {"href=\"http", "src=", "@import", "<script"})
      EXPECT_EQ(read(file("p.html")).find(outside), std::string::npos) << outside;
  }
}

TEST(Probe, LongContextTakesSeveralModels) {
  small();
  text();
  const std::string probe = "probe long_context small.h5 small.h5 ";
  const Outcome read_it =
      plait(probe + "--text small.txt --length 200 --distances 0 --json p.json --plot p.svg");
  ASSERT_EQ(read_it.code, 0) << read_it.error;
  EXPECT_NE(read_it.out.find("restarted 1-64"), std::string::npos) << read_it.out;
  const Json json = Json::parse(read(file("p.json")));
  EXPECT_EQ(json["probe"], "long_context");
  ASSERT_EQ(json["models"].size(), 2u);
  EXPECT_EQ(json["models"][0], json["models"][1]);
  EXPECT_EQ(json["models"][0]["tokens"], 200);
  // The whole model's loss is that of `plait score`.
  const std::string first = read(file("small.txt")).substr(0, 200);
  write(file("first.txt"), first);
  const Json scored = plait("score small.h5 --text first.txt --json -").json();
  EXPECT_NEAR(json["models"][0]["variants"][0]["nll"].get<double>(), scored["nll"].get<double>(), 1e-9);
  EXPECT_EQ(read(file("p.svg")).find("nan"), std::string::npos);
  const Outcome asked =
      plait("probe long_context small.h5 --distances 128 --items 2 --pairs 2 --off none --json -");
  ASSERT_EQ(asked.code, 0) << asked.error;
  const Json of_model = asked.json()["models"][0];
  EXPECT_EQ(of_model["tasks"].size(), 6u);  // three tasks, whole and with a window
  EXPECT_EQ(of_model["items"], 2);
  EXPECT_EQ(of_model["pairs"], 2);
  EXPECT_EQ(of_model["seed"], 1);
  EXPECT_EQ(of_model["tasks"][0]["answers"], 2);
  const Outcome piped = shell(
      "head -c 200 small.txt | \"$PLAIT\" probe long_context small.h5 small.h5 --text - --distances 0 --json "
      "-");
  ASSERT_EQ(piped.code, 0) << piped.error;
  EXPECT_EQ(piped.json()["models"][1]["variants"], json["models"][1]["variants"])
      << "read once for all models";
}

TEST(Probe, MistakesAreOneSentence) {
  small();
  text();
  const std::vector<std::tuple<std::string, int, std::string>> cases = {
      {"probe attention_map small.h5 --text small.txt", 2, "attention_map"},
      {"probe --bogus", 2, "--bogus"},
      {"probe attention_maps small.h5", 2, "--text"},
      {"probe long_context small.h5 --distances 0", 2, "--distances"},
      {"probe long_context small.h5 --distances 0,128", 2, "--distances"},
      {"probe long_context small.h5 --distances 64,128,64", 2, "64 is given twice"},
      {"probe long_context small.h5 --off delta_net,none", 2, "none stands alone"},
      {"probe long_context small.h5 --off delta_net,delta_net", 2, "delta_net is given twice"},
      {"probe long_context small.h5 --off nothing --distances 128", 3, "nothing"},
      {"probe long_context small.h5 --text missing.txt", 3, "missing.txt"},
      {"probe long_context missing.h5", 3, "missing.h5"},
      {"probe attention_maps small.h5 --text small.txt --tokens small.txt", 2, "--tokens"},
      {"probe attention_maps small.h5 --text small.txt --bogus", 2, "--bogus"},
      {"probe attention_maps small.h5 --text small.txt --limit 1", 2, "--limit"},
      {"probe attention_maps small.h5 --text small.txt --layer 99", 2, "99"},
      {"probe attention_maps small.h5 --text small.txt --head 99", 2, "99"},
      {"probe attention_maps small.h5 --text small.txt --plot p.png", 2, "p.png"},
      {"probe attention_maps missing.h5 --text small.txt", 3, "missing.h5"},
      {"probe attention_maps small.h5 --text missing.txt", 3, "missing.txt"},
      {"probe attention_sinks small.h5 --text small.txt --limit 10", 3, "--skip"},
      {"probe vertex_softmax small.h5 --text small.txt --cache q3", 2, "--cache"},
      {"probe vertex_softmax small.h5 --text small.txt --cache q8 --logit-error 0.1", 2, "--cache"},
      {"probe vertex_softmax small.h5 --text small.txt --logit-error 0", 2, "no positive number"},
  };
  const int before = count_files();
  for (const auto& [arguments, code, part] : cases) {
    SCOPED_TRACE(arguments);
    expect_error(plait(arguments), code, part);
  }
  EXPECT_EQ(count_files(), before);
}

}  // namespace
}  // namespace plait
