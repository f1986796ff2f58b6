// plait probe as a user meets it: the list, the files it writes, mistakes.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/error.h"
#include "tests/cli/program.h"
#include "tools/npy.h"

namespace plait {
namespace {

using namespace testing;

const char* const kOfModels[] = {"attention_maps", "attention_sinks", "attention_statistics",
                                 "attention_thermodynamics", "vertex_softmax"};

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

// Layers of the small model: two windowed heads beside a linear and a polynomial branch, two heads after a
// ttt_linear; the one gate is that of gated_delta_net.
TEST(Probe, AttentionStatisticsOfHeadsBlocksAndGates) {
  small();
  text();
  const Json json = plait("probe attention_statistics small.h5 --text small.txt --limit 40 --json -").json();
  ASSERT_EQ(json["heads"].size(), 4u);
  for (const Json& head : json["heads"]) {
    EXPECT_GT(head["frobenius_norm"].get<double>(), 1) << "row 0 alone has norm 1";
    EXPECT_LT(head["frobenius_norm"].get<double>(), std::sqrt(40.0));
    EXPECT_GE(head["stable_rank"].get<double>(), 1);
  }
  const Json maps = plait("probe attention_maps small.h5 --text small.txt --limit 40 --json -").json();
  for (int h = 0; h < 4; ++h) EXPECT_EQ(json["heads"][h]["entropy"], maps["heads"][h]["entropy"]);
  ASSERT_EQ(json["blocks"].size(), 4u);
  EXPECT_EQ(json["blocks"][0]["stream"], "before");
  EXPECT_EQ(json["blocks"][3]["stream"], "blocks.2");
  for (const Json& block : json["blocks"]) {
    EXPECT_GT(block["token_distance"].get<double>(), 0);
    EXPECT_LT(block["token_distance"].get<double>(), 2);
  }
  std::vector<std::string> kinds;
  for (const Json& gate : json["gates"]) kinds.push_back(gate["kind"]);
  EXPECT_EQ(kinds, (std::vector<std::string>{"gated_delta_net"}));
}

TEST(Probe, AttentionSinksCountsThemPerLayer) {
  small();
  text();
  const std::string probe = "probe attention_sinks small.h5 --text small.txt --limit 40 --json - ";
  const Json json = plait(probe).json();
  ASSERT_EQ(json["layers"].size(), 2u);
  for (const Json& layer : json["layers"]) {
    EXPECT_EQ(layer["heads"], 2);
    std::vector<Json> eps;
    for (const Json& count : layer["counts"]) {
      eps.push_back(count["eps"]);
      EXPECT_EQ(count["sinks"], 0) << "random heads look at more than one key";
    }
    EXPECT_EQ(eps, (std::vector<Json>{nullptr, 0.5, 0.3, 0.2, 0.1}));
  }
  for (const Json& head : json["heads"]) EXPECT_TRUE(head["strict_eps"].is_null());
  EXPECT_EQ(plait(probe + "--eps 0.25").json()["layers"][0]["counts"].size(), 2u);
}

// Of an encoder every row sees every key: row 0 counts, and no row is left out for having few keys.
TEST(Probe, ReadsEncoders) {
  ASSERT_EQ(
      plait("new '" PLAIT_SOURCE_DIR "/tests/cli/cards/encoder.json' probed_encoder.h5 --seed 7 --quiet")
          .code,
      0);
  text();
  const auto probe = [](const char* name) {
    return plait(cat("probe ", name, " probed_encoder.h5 --text small.txt --limit 40 --json -")).json();
  };
  for (const char* name : {"attention_maps", "attention_sinks", "attention_statistics",
                           "attention_thermodynamics", "large_prompt_limit"})
    EXPECT_EQ(probe(name)["heads"].size(), 2u) << name;
  EXPECT_EQ(probe("attention_sinks")["skip"], 0);
  EXPECT_EQ(probe("attention_statistics")["blocks"].size(), 4u);
  EXPECT_EQ(
      plait("probe degrees_of_freedom probed_encoder.h5 --text small.txt --limit 40 --samples 64 --json -")
          .json()["heads"]
          .size(),
      2u);
  const Json bounds = probe("vertex_softmax");
  EXPECT_EQ(bounds["layers"][0]["outside"], 0);
  EXPECT_GT(bounds["layers"][0]["bound"].get<double>(), 0);
  EXPECT_NE(
      plait("probe attention_maps probed_encoder.h5 --text small.txt --limit 40").out.find("rows 0 to 39"),
      std::string::npos);
}

std::string npy_of(Index rows, Index cols, const std::vector<float>& values) {
  return npy_header_f32(rows, cols) +
         std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

template <class T>
std::string npy_column(const char* type, const std::vector<T>& values) {
  return npy_header(type, cat("(", values.size(), ",)")) +
         std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

TEST(Probe, PooledRetrievalReadsEmbeddings) {
  // Rows of b at 0, 90, 180 and 270 degrees, those of a 30 degrees ahead of rows 0, 1 and 2.
  const auto circle = [](const std::vector<double>& degrees) {
    std::vector<float> rows;
    for (const double d : degrees) {
      rows.push_back(static_cast<float>(std::cos(d * M_PI / 180)));
      rows.push_back(static_cast<float>(std::sin(d * M_PI / 180)));
    }
    return npy_of(static_cast<Index>(degrees.size()), 2, rows);
  };
  write(file("a.npy"), circle({30, 120, 210}));
  write(file("b.npy"), circle({0, 90, 180, 270}));
  write(file("swapped.npy"), npy_column<std::int64_t>("'<i8'", {1, 0, 2}));
  write(file("values.npy"), npy_column<double>("'<f8'", {-8, -2, -9}));
  const Outcome right = plait("probe pooled_retrieval a.npy b.npy --top 1,2 --json r.json --plot r.svg");
  ASSERT_EQ(right.code, 0) << right.error;
  EXPECT_NE(right.out.find("RECALL@2"), std::string::npos) << right.out;
  EXPECT_EQ(read(file("r.svg")).find("nan"), std::string::npos);
  const Json json = Json::parse(read(file("r.json")));
  EXPECT_EQ(json["retrieval"][0]["ranks"], Json({1, 1, 1}));
  EXPECT_EQ(json["retrieval"][1]["ranks"], Json({1, 1, 1}));
  EXPECT_EQ(json["retrieval"][1]["pool"], 3);
  const double c = std::sqrt(0.75) / 0.07, s = 0.5 / 0.07;  // cosines of 30, 60, 120 and 150 degrees
  EXPECT_NEAR(json["retrieval"][0]["loss"].get<double>(),
              std::log(std::exp(c) + std::exp(s) + std::exp(-s) + std::exp(-c)) - c, 1e-5);
  // a0 with b1 and a1 with b0: cosines of 60 and 120 degrees; a2 as before. The line through three values.
  const Outcome swapped = plait(
      "probe pooled_retrieval a.npy b.npy --partners swapped.npy --temperature 1 --measured values.npy"
      " --json s.json --plot s.html");
  ASSERT_EQ(swapped.code, 0) << swapped.error;
  EXPECT_NE(swapped.out.find("measured = "), std::string::npos) << swapped.out;
  const Json other = Json::parse(read(file("s.json")));
  EXPECT_EQ(other["retrieval"][0]["ranks"], Json({2, 3, 1}));
  EXPECT_EQ(other["retrieval"][0]["recall"]["1"], 1.0 / 3);
  const double scores[] = {0.5, -0.5, std::sqrt(0.75)}, mean = std::sqrt(0.75) / 3, values[] = {-8, -2, -9};
  double cross = 0, square = 0;
  for (int i = 0; i < 3; ++i) {
    cross += (scores[i] - mean) * (values[i] + 19.0 / 3);
    square += (scores[i] - mean) * (scores[i] - mean);
  }
  EXPECT_NEAR(other["calibration"]["alpha"].get<double>(), cross / square, 1e-5);
  EXPECT_NEAR(other["calibration"]["beta"].get<double>(), -19.0 / 3 - cross / square * mean, 1e-5);
}

TEST(Probe, PooledRetrievalRefusesWhatDoesNotFit) {
  write(file("two.npy"), npy_of(2, 2, {1, 0, 0, 1}));
  write(file("three.npy"), npy_of(3, 2, {1, 0, 0, 1, 1, 1}));
  write(file("wide.npy"), npy_of(2, 3, {1, 0, 0, 0, 1, 1}));
  write(file("zero.npy"), npy_of(2, 2, {1, 0, 0, 0}));
  write(file("short.npy"), npy_of(2, 2, {1, 0, 0}));
  write(file("empty.npy"), npy_of(0, 2, {}));
  write(file("columns.npy"), "\x93NUMPY\x01" + std::string(1, '\0') + "\x46" + std::string(1, '\0') +
                                 "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }            ");
  write(file("list.npy"), npy_column<float>("'<f4'", {1, 2}));
  write(file("half.npy"), npy_column<std::int16_t>("'<f2'", {1, 2}));
  write(file("cube.npy"), npy_header("'<f4'", "(1, 1, 1)") + "0000");
  write(file("huge.npy"), npy_header("'<f4'", "(4294967296, 4294967296)"));
  write(file("far.npy"), npy_column<std::int32_t>("'<i4'", {0, 3}));
  write(file("no.npy"), "1 0");
  const float none = std::nanf("");
  write(file("few.npy"), npy_column<float>("'<f4'", {1, none, 2}));
  write(file("same.npy"), npy_column<float>("'<f4'", {1, 3, 2}));
  const std::vector<std::tuple<std::string, int, std::string>> cases = {
      {"two.npy", 2, "b is required"},
      {"two.npy two.npy --temperature 0", 2, "--temperature"},
      {"two.npy two.npy --top 0", 2, "--top"},
      {"missing.npy two.npy", 3, "missing.npy"},
      {"no.npy two.npy", 3, "no .npy file"},
      {"two.npy wide.npy", 3, "of 3"},
      {"three.npy two.npy", 3, "--partners"},
      {"two.npy zero.npy", 3, "row 1 of 'zero.npy'"},
      {"short.npy two.npy", 3, "holds 12 bytes"},
      {"empty.npy two.npy", 3, "no numbers"},
      {"columns.npy two.npy", 3, "column by column"},
      {"list.npy two.npy", 3, "one dimension"},
      {"half.npy two.npy", 3, "'<f2'"},
      {"cube.npy two.npy", 3, "(1, 1, 1)"},
      {"huge.npy two.npy", 3, "too many"},
      {"two.npy two.npy --partners list.npy", 3, "'<f4'"},
      {"two.npy two.npy --partners far.npy", 3, "partner 1 of 'far.npy' is 3"},
      {"three.npy three.npy --partners far.npy", 3, "2 partners"},
      {"three.npy three.npy --measured list.npy", 3, "2 rows of 1"},
      {"three.npy three.npy --measured few.npy", 3, "2 finite values"},
      {"three.npy three.npy --measured same.npy", 3, "one score"},
  };
  for (const auto& [arguments, code, part] : cases) {
    SCOPED_TRACE(arguments);
    expect_error(plait("probe pooled_retrieval " + arguments), code, part);
  }
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
      {"probe attention_sinks small.h5 --text small.txt --eps 0.6", 2, "--eps"},
      {"probe vertex_softmax small.h5 --text small.txt --cache q3", 2, "--cache"},
      {"probe vertex_softmax small.h5 --text small.txt --cache q8 --logit-error 0.1", 2, "--cache"},
      {"probe vertex_softmax small.h5 --text small.txt --logit-error 0", 2, "0 is not in [1e-12 - 1e+06]"},
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
