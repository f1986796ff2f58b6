// Every verb does what the contract of the program says.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "tests/cli/program.h"
#include "weights/h5.h"

namespace plait {
namespace {

using namespace testing;

std::vector<std::string> keys(const Json& json) {
  std::vector<std::string> names;
  for (const auto& [key, value] : json.items()) names.push_back(key);
  return names;
}

void expect_keys(const Json& json, std::initializer_list<const char*> names) {
  for (const char* name : names)
    EXPECT_TRUE(json.contains(name)) << name << " is missing in " << Json(keys(json)).dump();
}

TEST(Program, HelpAndVersionGoToStandardOutput) {
  const Outcome version = plait("--version");
  EXPECT_EQ(version.code, 0);
  EXPECT_TRUE(version.out.starts_with("plait 0.")) << version.out;
  const Outcome help = plait("--help");
  EXPECT_EQ(help.code, 0);
  for (const char* verb : {"new", "inspect", "kinds", "tokenize", "run", "score", "verify", "report", "bench"}) {
    EXPECT_NE(help.out.find(verb), std::string::npos) << verb;
    const Outcome one = plait(cat(verb, " --help"));
    EXPECT_EQ(one.code, 0) << verb;
    EXPECT_EQ(one.error, "") << verb;
    for (const char* flag : {"--threads", "--numerics", "--seed", "--json", "--quiet", "--memory"})
      EXPECT_NE(one.out.find(flag), std::string::npos) << verb << " " << flag;
  }
}

TEST(New, IsAFunctionOfCardAndSeed) {
  const std::string card = "'" PLAIT_SOURCE_DIR "/tests/cli/cards/small.json'";
  const auto digest = [&](const std::string& flags) {
    return plait("new " + card + " made.h5 --json - " + flags).json()["sha256"];
  };
  const Json first = digest("--seed 7");
  EXPECT_EQ(digest("--seed 7"), first);
  EXPECT_NE(digest("--seed 8"), first);
  EXPECT_NE(digest("--seed 7 --dtype bf16"), first);
}

TEST(Inspect, ShowsAModel) {
  const Json json =
      plait("inspect " + small() + " --check --graph --tensors --sites --state --card --json -").json();
  expect_keys(json, {"format", "name", "family", "parameters", "parameters_by_kind", "nodes", "vocab",
                     "graph", "tensors", "card", "checked"});
  EXPECT_EQ(json["name"], "small");
  EXPECT_EQ(json["vocab"], 256);
  long long sum = 0, by_kind = 0, elements = 0;
  for (const Json& node : json["nodes"]) {
    expect_keys(node, {"name", "kind", "parameters", "state_bytes", "sites", "fields"});
    sum += node["parameters"].get<long long>();
  }
  for (const auto& [kind, count] : json["parameters_by_kind"].items()) by_kind += count.get<long long>();
  for (const Json& tensor : json["tensors"]) {
    long long count = 1;
    for (const Json& size : tensor["shape"]) count *= size.get<long long>();
    elements += count;
  }
  EXPECT_EQ(json["parameters"], sum);
  EXPECT_EQ(json["parameters"], by_kind);
  EXPECT_EQ(json["parameters"], elements);
  EXPECT_GT(json["bytes_per_token"], 0);  // one attention layer has no window

  const Outcome plain = plait("inspect " + small());
  EXPECT_EQ(plain.code, 0);
  EXPECT_NE(plain.out.find("gated_delta_net"), std::string::npos);
}

TEST(Inspect, ExpandedGraphIsACardOfTheSameModel) {
  ASSERT_EQ(shell("\"$PLAIT\" inspect " + small() + " --graph > graph.json").code, 0);
  const Json expanded = plait("new graph.json expanded.h5 --seed 7 --json -").json();
  const Json whole = plait("inspect small.h5 --json -").json();
  EXPECT_EQ(expanded["sha256"], whole["sha256"]);
}

TEST(Kinds, SaysEnoughToWriteACard) {
  const Json json = plait("kinds --json -").json();
  ASSERT_TRUE(json.is_array());
  bool rope = false;
  for (const Json& kind : json) {
    expect_keys(kind, {"kind", "summary", "options", "tensors", "sites", "fields", "source"});
    EXPECT_FALSE(kind["summary"].get<std::string>().empty()) << kind["kind"];
    EXPECT_FALSE(kind["source"].get<std::string>().empty()) << kind["kind"];
    for (const Json& option : kind["options"]) {
      expect_keys(option, {"name", "type", "default", "help"});
      rope = rope || (kind["kind"] == "softmax_attention" && option["name"] == "rope.theta");
    }
    for (const Json& tensor : kind["tensors"]) expect_keys(tensor, {"name", "shape", "required"});
    EXPECT_EQ(plait("kinds " + kind["kind"].get<std::string>()).code, 0);
  }
  EXPECT_TRUE(rope) << "nested settings are listed by their path";
  expect_error(plait("kinds gated_delta_nett"), 3, "gated_delta_net");
}

TEST(Tokenize, ThereAndBack) {
  const Json json = plait("tokenize " + small() + " 'h\xc3\xa9!' --json -").json();
  EXPECT_EQ(json["tokens"], Json({'h', 0xc3, 0xa9, '!'}));
  write(file("ids.txt"), "104 195\n169\t33");
  EXPECT_EQ(plait("tokenize small.h5 --ids ids.txt").out, "h\xc3\xa9!");
  EXPECT_EQ(plait("tokenize small.h5 ab").out, "97\t\"a\"\n98\t\"b\"\n");
  EXPECT_EQ(shell("printf ab | \"$PLAIT\" tokenize small.h5 --text -").out, "97\t\"a\"\n98\t\"b\"\n");
  expect_error(plait("tokenize small.h5"), 2, "TEXT");
  write(file("ids.txt"), "104 256");
  expect_error(plait("tokenize small.h5 --ids ids.txt"), 3, "256");
}

Json score(const std::string& arguments) {
  const bool threads = arguments.find("--threads") != std::string::npos;
  return plait("score " + arguments + (threads ? "" : " --threads 1") + " --json -").json();
}

TEST(Score, OneDigestForEverySplitAndThreadCountInBothModes) {
  for (const std::string& model : {small(), narrow()})
    for (const char* mode : {"exact", "fast"}) {
      std::string digest;
      for (const char* split : {"all", "1", "7", "64,1,300"})
        for (const int threads : {1, 2}) {
          const Json json = score(cat(model, " --text ", text(), " --numerics ", mode, " --split ", split,
                                      " --threads ", threads));
          ASSERT_TRUE(json.contains("logits_sha256"));
          if (digest.empty()) digest = json["logits_sha256"].get<std::string>();
          EXPECT_EQ(json["logits_sha256"], digest) << model << " " << mode << " " << split << " " << threads;
        }
    }
}

TEST(Score, OneDigestForEveryInstructionSetInExactMode) {
  for (const std::string& model : {small(), narrow()}) {
    std::string digest;
    int sets = 0;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      const Outcome outcome = shell(
          cat("PLAIT_ISA=", isa, " \"$PLAIT\" score ", model, " --text ", text(), " --threads 1 --json -"));
      if (outcome.code == 3) {
        EXPECT_NE(outcome.error.find(isa), std::string::npos)
            << "a machine without it says so: " << outcome.error;
        continue;
      }
      ++sets;
      const Json json = outcome.json();
      EXPECT_EQ(json["isa"], isa);
      if (digest.empty()) digest = json["logits_sha256"].get<std::string>();
      EXPECT_EQ(json["logits_sha256"], digest) << model << " " << isa;
    }
    EXPECT_GE(sets, 1);
  }
  expect_error(shell("PLAIT_ISA=mmx \"$PLAIT\" score small.h5 --text small.txt"), 3, "mmx");
}

// Everything score prints follows from the logits it dumps.
TEST(Score, NumbersFollowFromTheDumpedLogits) {
  const Json json = score(small() + " --text " + text() + " --dump-logits logits.npy --per-token tokens.h5");
  expect_keys(json,
              {"model", "tokens", "scored", "nll", "nll_stderr", "bits_per_byte", "perplexity", "top1",
               "numerics", "isa", "threads", "arithmetic", "seconds", "tokens_per_second", "logits_sha256"});
  const std::string npy = read(file("logits.npy")), words = read(file("small.txt"));
  const std::size_t header = 10 + (static_cast<unsigned char>(npy[8]) |
                                   static_cast<std::size_t>(static_cast<unsigned char>(npy[9])) << 8);
  EXPECT_NE(npy.find("'shape': (400, 256)"), std::string::npos);
  EXPECT_EQ(header % 64, 0u);
  ASSERT_EQ(npy.size(), header + 400 * 256 * 4);
  EXPECT_EQ(json["logits_sha256"], sha256(std::string_view(npy).substr(header)));

  std::vector<float> logits(400 * 256);
  std::memcpy(logits.data(), npy.data() + header, logits.size() * 4);
  std::vector<double> nll;
  double total = 0, correct = 0;
  for (std::size_t t = 0; t + 1 < 400; ++t) {
    const float* row = logits.data() + t * 256;
    double sum = 0;
    int better = 0;
    const auto target = static_cast<unsigned char>(words[t + 1]);
    for (int v = 0; v < 256; ++v) {
      sum += std::exp(double{row[v]});
      better += row[v] > row[target] || (row[v] == row[target] && v < target);
    }
    nll.push_back(std::log(sum) - row[target]);
    total += nll.back();
    correct += better == 0;
  }
  const double mean = total / 399;
  EXPECT_EQ(json["tokens"], 400);
  EXPECT_EQ(json["scored"], 399);
  EXPECT_NEAR(json["nll"].get<double>(), mean, 1e-12);
  EXPECT_NEAR(json["bits_per_byte"].get<double>(), mean / std::log(2.0), 1e-12);
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(mean), 1e-9);
  EXPECT_NEAR(json["top1"].get<double>(), correct / 399, 1e-12);
  double squares = 0;
  for (const double v : nll) squares += (v - mean) * (v - mean);
  EXPECT_NEAR(json["nll_stderr"].get<double>(), std::sqrt(squares / 398 / 399), 1e-12);

  const h5::File table = h5::File::open(file("tokens.h5"));
  const h5::Dataset column = table.root().dataset("nll");
  ASSERT_EQ(column.shape(), Shape{399});
  std::vector<double> stored(399);
  column.read(reinterpret_cast<std::byte*>(stored.data()), [](std::uint64_t) {});
  for (std::size_t i = 0; i < 399; ++i) EXPECT_NEAR(stored[i], nll[i], 1e-12) << i;
}

// The same ids as text, as int32 and as int64 arrays.
TEST(Score, TokensFromFiles) {
  const Json expected = score(small() + " --text " + text())["logits_sha256"];
  const std::string words = read(file("small.txt"));
  std::string ids, narrow_ids, wide_ids;
  for (const char c : words) {
    ids += cat(int{c}, " ");
    const std::int32_t id = c;
    const std::int64_t wide = c;
    narrow_ids.append(reinterpret_cast<const char*>(&id), 4);
    wide_ids.append(reinterpret_cast<const char*>(&wide), 8);
  }
  const auto npy = [](const char* type, const std::string& data) {
    std::string header = cat("{'descr': '", type, "', 'fortran_order': False, 'shape': (400,), }");
    header.resize(117, ' ');
    return std::string("\x93NUMPY\x01\x00\x76\x00", 10) + header + "\n" + data;
  };
  write(file("score_ids.txt"), ids);
  write(file("ids32.npy"), npy("<i4", narrow_ids));
  write(file("ids64.npy"), npy("<i8", wide_ids));
  for (const char* name : {"score_ids.txt", "ids32.npy", "ids64.npy"})
    EXPECT_EQ(score(cat("small.h5 --tokens ", name))["logits_sha256"], expected) << name;

  write(file("bad.npy"), npy("<f4", narrow_ids));
  expect_error(plait("score small.h5 --tokens bad.npy"), 3, "<f4");
  write(file("bad.npy"), npy("<i4", narrow_ids).substr(0, 500));
  expect_error(plait("score small.h5 --tokens bad.npy"), 3, "bad.npy");
  write(file("bad.npy"), npy("<i4", narrow_ids).substr(0, 60));
  expect_error(plait("score small.h5 --tokens bad.npy"), 3, "bad.npy");
  write(file("bad.txt"), "1 2 x3");
  expect_error(plait("score small.h5 --tokens bad.txt"), 3, "x3");
}

TEST(Score, WindowsAreFreshStreams) {
  const Json windows = score(small() + " --text " + text() + " --context 100");
  EXPECT_EQ(windows["scored"], 4 * 99);
  EXPECT_EQ(score("small.h5 --text small.txt --context 100 --split 7")["logits_sha256"],
            windows["logits_sha256"]);
  write(file("first.txt"), read(file("small.txt")).substr(0, 100));
  write(file("second.txt"), read(file("small.txt")).substr(100, 100));
  write(file("both.txt"), read(file("small.txt")).substr(0, 200));
  const double first = score("small.h5 --text first.txt")["nll"],
               second = score("small.h5 --text second.txt")["nll"];
  EXPECT_NEAR(score("small.h5 --text both.txt --context 100")["nll"].get<double>(), (first + second) / 2,
              1e-12);
  EXPECT_EQ(score("small.h5 --text small.txt --context 1000")["logits_sha256"],
            score("small.h5 --text small.txt --stream")["logits_sha256"]);
}

TEST(Score, Edits) {
  const Json clean = score(small() + " --text " + text());
  write(file("zero.json"), R"([{"where": "blocks.1.mixer.linear", "operator": "zero"}])");
  const Json zero = score("small.h5 --text small.txt --edits zero.json");
  EXPECT_NE(zero["logits_sha256"], clean["logits_sha256"]);
  EXPECT_EQ(score("small.h5 --text small.txt --edits zero.json --split 7,64,1")["logits_sha256"],
            zero["logits_sha256"]);
  EXPECT_EQ(zero["edits"].size(), 1u);
  write(file("none.json"), R"([{"where": "blocks.1.mixer.linear", "operator": "zero", "strength": 0}])");
  EXPECT_EQ(score("small.h5 --text small.txt --edits none.json")["logits_sha256"], clean["logits_sha256"]);
  write(file("late.json"),
        R"([{"where": "blocks.1.mixer.linear", "operator": "zero", "tokens": [400, 800]}])");
  EXPECT_EQ(score("small.h5 --text small.txt --edits late.json")["logits_sha256"], clean["logits_sha256"]);

  write(file("nowhere.json"), R"([{"where": "blocks.9.mixer", "operator": "zero"}])");
  expect_error(plait("score small.h5 --text small.txt --edits nowhere.json"), 3, "blocks.9.mixer");
  write(file("unknown.json"), R"([{"where": "blocks.1.mixer.linear", "operater": "zero"}])");
  expect_error(plait("score small.h5 --text small.txt --edits unknown.json"), 3, "operat");
}

TEST(Score, EditsAsYaml) {
  const std::string scored = small() + " --text " + text() + " --edits ";
  write(file("branch.json"), R"([{"where": "blocks.1.mixer.linear", "operator": "zero"}])");
  write(file("branch.yaml"), "- {where: blocks.1.mixer.linear, operator: zero}\n");
  const Json edited = score(scored + "branch.json");
  EXPECT_EQ(score(scored + "branch.yaml")["logits_sha256"], edited["logits_sha256"]);
  write(file("kind.yaml"), "- site: branch\n  op: zero\n  where: {kind: linear_attention, layers: 1}\n");
  const Json by_kind = score(scored + "kind.yaml");
  EXPECT_EQ(by_kind["logits_sha256"], edited["logits_sha256"]);
  EXPECT_EQ(by_kind["edits"], edited["edits"]);

  write(file("study.yaml"), "conditions: []\n");
  expect_error(plait("score " + scored + "study.yaml"), 3, "must be a list");
  write(file("site.yaml"), "- site: mixer\n  op: sero\n");
  expect_error(plait("score " + scored + "site.yaml"), 3, "line 1");
  write(file("nokind.yaml"), "- {site: mixer, op: zero, where: {kind: mamba3}}\n");
  expect_error(plait("score " + scored + "nokind.yaml"), 3, "mamba3");
}

TEST(Run, IsAFunctionOfPromptAndSeed) {
  const auto run = [](const std::string& flags) {
    return plait("run " + small() + " --prompt 'once upon' -n 24 --threads 1 --quiet " + flags);
  };
  const Outcome first = run("--seed 3");
  EXPECT_EQ(first.code, 0) << first.error;
  EXPECT_EQ(first.error, "");
  EXPECT_EQ(run("--seed 3").out, first.out);
  EXPECT_NE(run("--seed 4").out, first.out);
  EXPECT_EQ(run("--temperature 0 --seed 3").out, run("--temperature 0 --seed 4 --top-k 5").out);
  EXPECT_NE(run("--temperature 0 --repetition-penalty 100").out, run("--temperature 0").out);
  const Json json = run("--seed 3 --json -").json();
  expect_keys(
      json, {"model", "tokens", "text", "seconds", "tokens_per_second", "numerics", "arithmetic", "sampler"});
  EXPECT_EQ(json["tokens"].size(), 24u);
  EXPECT_EQ(json["numerics"], "fast");
  write(file("prompt.txt"), "once upon");
  EXPECT_EQ(plait("run small.h5 --prompt-file prompt.txt -n 24 --threads 1 --quiet --seed 3").out, first.out);
  EXPECT_NE(plait("run small.h5 --prompt-file prompt.txt -n 4").error.find("tokens/s"), std::string::npos);
}

TEST(Run, StopsBeforeAStopText) {
  const Json whole = plait("run " + small() + " --prompt once -n 120 --threads 1 --seed 5 --json -").json();
  // A byte that occurs, as a character, neither first nor last.
  const std::string all = whole["text"];
  std::size_t at = 20;
  while (at < all.size() && !std::isalnum(static_cast<unsigned char>(all[at]))) ++at;
  ASSERT_LT(at, all.size());
  const std::string stop(1, all[at]);
  const Json json =
      plait("run small.h5 --prompt once -n 120 --threads 1 --seed 5 --json - --stop 'never occurs' --stop " +
            stop)
          .json();
  EXPECT_EQ(json["text"], all.substr(0, all.find(stop)));
  EXPECT_EQ(json["stopped"], "stop");
}

TEST(Run, ALoadedSnapshotGoesOnAsIfNothingHappened) {
  for (const char* mode : {"exact", "fast"}) {
    const std::string flags = cat(" --threads 1 --quiet --json - --numerics ", mode);
    const Json whole =
        plait("run " + narrow() +
              " --prompt 'It was' -n 90 --seed 11 --repetition-penalty 1.1 --top-k 50 --temperature 0.9" +
              flags)
            .json();
    const Json first = plait(
                           "run narrow.h5 --prompt 'It was' -n 37 --seed 11 --repetition-penalty 1.1 --top-k "
                           "50 --temperature 0.9 --save half.h5" +
                           flags)
                           .json();
    const Json second = plait("run narrow.h5 --load half.h5 -n 53 --threads 1 --quiet --json -").json();
    Json joined = first["tokens"];
    for (const Json& token : second["tokens"]) joined.push_back(token);
    EXPECT_EQ(joined, whole["tokens"]) << mode;
    EXPECT_EQ(second["numerics"], mode) << "the mode comes from the snapshot";
    EXPECT_EQ(plait("inspect half.h5 --json -").json()["position"], 6 + 37);

    // A prompt goes on from the snapshot, too.
    const Json more =
        plait("run narrow.h5 --load half.h5 --prompt ' and' -n 5 --threads 1 --quiet --json -").json();
    EXPECT_EQ(more["position"].get<int>(), 6 + 37 + 4 + 4);  // the last token is not fed without --save

    const char* other = std::string(mode) == "exact" ? "fast" : "exact";
    const Outcome refused = plait(cat("run narrow.h5 --load half.h5 --numerics ", other));
    expect_error(refused, 3, "exact");
    expect_error(refused, 3, "fast");
  }
  expect_error(plait("run " + small() + " --load half.h5"), 3, "identity");
  write(file("zero.json"), R"([{"where": "blocks.1.mixer.linear", "operator": "zero"}])");
  expect_error(plait("run narrow.h5 --load half.h5 --edits zero.json"), 3, "edits");
}

TEST(Verify, PassesOnTheSmallModels) {
  for (const std::string& model : {small(), narrow()}) {
    const Json json = plait("verify " + model + " -n 140 --threads 1 --json -").json();
    expect_keys(json, {"passed", "nodes", "checks"});
    EXPECT_EQ(json["passed"], true);
    for (const Json& node : json["nodes"]) {
      expect_keys(node, {"name", "rel_error", "bound"});
      EXPECT_LE(node["rel_error"], node["bound"]) << node.dump();
      EXPECT_LT(node["bound"], node["numerics"] == "exact" ? 1e-3 : 0.5)
          << "a bound that says something: " << node.dump();
    }
    for (const Json& check : json["checks"]) {
      expect_keys(check, {"name", "passed", "detail"});
      EXPECT_EQ(check["passed"], true) << check.dump();
    }
    EXPECT_GE(json["checks"].size(), 24u);
  }
  const Outcome plain = plait("verify small.h5 -n 40 --threads 1 --text " + text());
  EXPECT_EQ(plain.code, 0) << plain.error;
  EXPECT_NE(plain.out.find("verified"), std::string::npos);
}

TEST(Bench, MeasuresAgainstItsOwnPeaks) {
  const Json json = plait("bench " + narrow() + " -p 16,64 -n 4 --repeat 1 --batch 2 --json -").json();
  expect_keys(json, {"model", "isa", "threads", "numerics", "results", "peak", "memory"});
  ASSERT_EQ(json["results"].size(), 3u);
  const std::vector<std::string> tests = {"pp16", "pp64", "tg4"};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(json["results"][i]["test"], tests[i]);
    EXPECT_GT(json["results"][i]["tokens_per_second"], 0);
    EXPECT_EQ(json["results"][i]["seconds"].size(), 1u);
  }
  EXPECT_GT(json["peak"]["gflops"], 0);
  EXPECT_GT(json["peak"]["read_gbps"], 0);
  EXPECT_GT(json["memory"]["rss_bytes"], 0);
  EXPECT_GT(json["memory"]["state_bytes"], 0);
}

}  // namespace
}  // namespace plait
