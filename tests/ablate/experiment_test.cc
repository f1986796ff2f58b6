// A whole study on a small model: its files, what a kill leaves, and whether controls and designs add up.
#include "tools/ablate/experiment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/run/recording.h"
#include "tests/ablate/models.h"
#include "tests/files.h"
#include "tests/testing.h"
#include "tools/ablate/designs.h"
#include "tools/ablate/remembrance.h"
#include "tools/ablate/report/page.h"
#include "tools/ablate/report/run.h"
#include "tools/ablate/spec.h"
#include "weights/model_file.h"

namespace plait::ablate {
namespace {

using testing::Folder;

// A byte model of two kinds of mixers and a text of 12 paragraphs.
class Experiments : public ::testing::Test {
 protected:
  Experiments() {
    const Json card = Json::parse(R"({
      "plait_format": 1, "name": "bytes", "vocab": 256, "width": 32, "pattern": ["d", "a", "d", "a"],
      "blocks": {
        "d": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "gated_delta_net", "num_heads": 2, "head_dim": 8,
               "value_head_dim": 8}, {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 48}],
        "a": [{"name": "mixer", "norm": {"kind": "rms_norm"}, "kind": "softmax_attention", "num_heads": 2,
               "head_dim": 8}, {"name": "mlp", "norm": {"kind": "rms_norm"}, "kind": "gated_mlp", "hidden": 48}]},
      "final_norm": {"kind": "rms_norm"}, "head": {}})");
    model_ = testing::random_model(card, 4);
    testing::write_bytes(folder_ / "model.h5", "the manifest's digest of the file is over these bytes");
    std::string text;
    testing::Numbers numbers(9);
    for (int paragraph = 0; paragraph < 12; ++paragraph) {
      for (const Token t : numbers.tokens(60 + 5 * paragraph, 26)) text += static_cast<char>('a' + t);
      text += "\n\n";
    }
    testing::write_bytes(folder_ / "text.txt", text);
  }

  ExperimentSettings settings(const std::string& run) {
    ExperimentSettings s;
    s.study.name = "test";
    s.study.designs =
        parse_sweep("mixer.zero,mlp.zero,layer.skip;group:mixer.zero;pair:mixer.zero;shapley:layer.skip");
    for (Design& design : s.study.designs)
      if (design.design == "shapley") design.permutations = 6;
    s.study.controls.targets = {"group"};
    s.study.controls.draws = 199;
    s.study.score.nll = {folder_ / "text.txt"};
    s.study.score.lengths = {64, 400};
    s.study.stats.boot = 200;
    s.model_file = folder_ / "model.h5";
    s.model = model_;
    s.tokenizer = std::make_shared<ByteTokenizer>();
    s.folder = folder_ / run;
    return s;
  }

  using Rows = std::vector<std::map<std::string, std::string>>;
  // No cell of these files has a comma or a quote but spec_json, which is not looked at.
  Rows table(const std::string& path) const {
    std::istringstream lines(testing::read_bytes(path));
    std::string line;
    std::getline(lines, line);
    const std::vector<std::string> names = cells(line);
    Rows rows;
    while (std::getline(lines, line)) {
      const std::vector<std::string> values = cells(line);
      auto& row = rows.emplace_back();
      for (std::size_t i = 0; i < names.size(); ++i) row[names[i]] = values.at(i);
    }
    return rows;
  }

  static std::vector<std::string> cells(const std::string& line) {
    std::vector<std::string> all(1);
    bool quoted = false;
    for (const char c : line) {
      if (c == '"')
        quoted = !quoted;
      else if (c == ',' && !quoted)
        all.emplace_back();
      else
        all.back() += c;
    }
    return all;
  }

  // results.csv without what a clock wrote and without the run's name.
  std::string timeless(const std::string& run) const {
    std::string text;
    for (auto row : table(folder_ / (run + "/results.csv"))) {
      row.erase("seconds");
      row.erase("run_id");
      for (const auto& [name, value] : row) text += name + "=" + value + ";";
      text += '\n';
    }
    return text;
  }

  // What run.json says the study cost, without what a clock wrote.
  Json work(const std::string& run) const {
    Json cost = Json::parse(testing::read_bytes(folder_ / (run + "/run.json"))).at("cost");
    EXPECT_GT(cost.at("forwards_equiv").get<double>() + cost.at("task_tokens").get<double>(), 0);
    cost.erase("seconds");
    return cost;
  }

  // Mean loss of streams of their own over windows of `context` tokens.
  double loss_alone(std::span<const Token> tokens, const EditList& edits, Index context,
                    const References& references = {}) const {
    double sum = 0, count = 0;
    for (std::size_t begin = 0; begin + 1 < tokens.size(); begin += static_cast<std::size_t>(context)) {
      const auto window = tokens.subspan(
          begin, std::min<std::size_t>(static_cast<std::size_t>(context), tokens.size() - begin));
      Stream stream(model_, {{}, 0, edits, references, 0});
      stream.feed(window, [&](Index p, std::span<const float> row) {
        if (static_cast<std::size_t>(p + 1) == window.size()) return;
        double exponentials = 0;
        for (const float x : row) exponentials += std::exp(static_cast<double>(x));
        sum +=
            std::log(exponentials) - row[static_cast<std::size_t>(window[static_cast<std::size_t>(p + 1)])];
        count += 1;
      });
    }
    return sum / count;
  }

  Folder folder_;
  std::shared_ptr<const Model> model_;
};

TEST_F(Experiments, WriteEveryFileOfTheSchema) {
  const ExperimentOutcome outcome = conduct(settings("run"));
  ASSERT_TRUE(outcome.valid) << outcome.failed_check;
  for (const char* name :
       {"run.json", "conditions.csv", "results.csv", "controls.csv", "checks.json", "tokens.h5"})
    EXPECT_GT(testing::read_bytes(folder_ / (std::string("run/") + name)).size(), 0u) << name;
  for (const char* key :
       {"schema_version", "run_id", "started", "finished", "engine", "device", "model", "tokenizer_sha256",
        "data", "arithmetic", "numerics", "seeds", "plan", "cmdline", "cost"})
    EXPECT_TRUE(outcome.run.contains(key)) << key;
  EXPECT_EQ(outcome.run["model"]["layer_types"],
            Json({"gated_delta_net", "softmax_attention", "gated_delta_net", "softmax_attention"}));
}

TEST_F(Experiments, ValuesAreThoseOfStreamsAndEffectsTheirDifferences) {
  ASSERT_TRUE(conduct(settings("run")).valid);
  const auto results = table(folder_ / "run/results.csv");
  const std::vector<Token> tokens = ByteTokenizer().encode(testing::read_bytes(folder_ / "text.txt"));
  int seen = 0;
  for (const auto& row : results) {
    if (row.at("metric") != "nll" || !row.at("position_bin").empty() || row.at("filter") != "none") continue;
    const Index context = std::stol(row.at("context_len"));
    Edit zero;
    zero.node = "blocks.2.mixer";
    const double base = loss_alone(tokens, {}, context), edited = loss_alone(tokens, {zero}, context);
    // Per token an f32 rounding of about 2^-24 times a few nats, averaged.
    if (row.at("condition_id") == "baseline") {
      EXPECT_NEAR(std::stod(row.at("value")), base, 1e-6);
      ++seen;
    }
    if (row.at("condition_id") == "single.mixer.zero.2") {
      EXPECT_NEAR(std::stod(row.at("value")), edited, 1e-6);
      ++seen;
      EXPECT_NEAR(std::stod(row.at("delta")), edited - base, 1e-6);
    }
  }
  EXPECT_EQ(seen, 4);
}

TEST_F(Experiments, ShapleyValuesAddUpAndControlsAreRanked) {
  ASSERT_TRUE(conduct(settings("run")).valid);
  double sum = 0, all = 0;
  int ranked = 0;
  for (const auto& row : table(folder_ / "run/results.csv")) {
    if (row.at("context_len") != "64") continue;
    if (row.at("metric") == "shapley") sum += std::stod(row.at("value"));
    if (row.at("filter").rfind("controls:", 0) == 0) {
      ++ranked;
      EXPECT_LE(std::stoi(row.at("control_rank")), std::stoi(row.at("control_n")) + 1);
      EXPECT_FALSE(row.at("control_gap").empty());
    }
  }
  // Every block skipped: what the last step of each order removed.
  EditList skipped;
  for (int b = 0; b < 4; ++b) {
    Edit skip;
    skip.node = "blocks." + std::to_string(b);
    skip.op = Operator::skip;
    skipped.push_back(skip);
  }
  for (const auto& row : table(folder_ / "run/results.csv"))
    if (row.at("metric") == "nll" && row.at("context_len") == "64" && row.at("position_bin").empty())
      for (const auto& condition : table(folder_ / "run/conditions.csv"))
        if (condition.at("condition_id") == row.at("condition_id") && condition.at("layers") == "0 1 2 3" &&
            condition.at("site") == "layer")
          all = std::stod(row.at("delta"));
  EXPECT_NE(all, 0);
  EXPECT_NEAR(sum, all, 1e-9);
  EXPECT_GE(ranked, 2) << "both groups among the other pairs of mixers";
}

TEST_F(Experiments, WhatIsForgottenIsAFreshStreamFromThereOn) {
  const std::vector<Token> tokens = testing::Numbers(2).tokens(150, 256);
  for (const Index at : {1, 32, 50, 100}) {
    Stream cut(model_, {{}, 0, forget_before(*model_, at), {}, 0}), fresh(model_);
    const auto logits = testing::all_logits(cut, tokens, {150});
    const auto alone =
        testing::all_logits(fresh, std::span(tokens).subspan(static_cast<std::size_t>(at)), {150});
    // Without rotary positions both see the same rows; the chunk grid lies elsewhere, so rounding differs: a
    // few hundred f32 roundings of values near 1.
    const auto begin = static_cast<std::size_t>(at) * 256;
    double worst = 0;
    for (std::size_t i = 0; i < alone.size(); ++i)
      worst = std::max(worst, static_cast<double>(std::abs(logits[begin + i] - alone[i])));
    EXPECT_LT(worst, 300 * 0x1p-24 * 8) << at;
  }
}

TEST_F(Experiments, RemembranceIsReportedByHistory) {
  ExperimentSettings s = settings("run");
  s.study.designs.clear();
  s.study.controls = {};
  s.study.score.remembrance = {100};
  s.study.score.lengths = {400};
  ASSERT_TRUE(conduct(s).valid);
  double near = -1, far = -1;
  for (const auto& row : table(folder_ / "run/results.csv")) {
    if (row.at("metric") != "effrem") continue;
    EXPECT_EQ(row.at("ci_method"), "cluster_t");
    EXPECT_LT(std::stod(row.at("ci_low")), std::stod(row.at("value")));
    EXPECT_GT(std::stod(row.at("ci_high")), std::stod(row.at("value")));
    if (row.at("position_bin") == "history 1-15") near = std::stod(row.at("value"));
    if (row.at("position_bin") == "history 256-1023") far = std::stod(row.at("value"));
  }
  EXPECT_GT(near, 0);
  EXPECT_GE(far, 0);
  EXPECT_LT(far, near) << "what lies far back matters less";
}

TEST_F(Experiments, AKilledRunEndsWithTheSameBytes) {
  std::string text;  // of several batches
  testing::Numbers letters(3);
  for (int paragraph = 0; paragraph < 40; ++paragraph) {
    for (const Token t : letters.tokens(250, 26)) text += static_cast<char>('a' + t);
    text += "\n\n";
  }
  testing::write_bytes(folder_ / "text.txt", text);
  const auto settings = [&](const std::string& run) {
    ExperimentSettings s = this->settings(run);
    s.study.score.lengths = {64};
    return s;
  };
  ASSERT_TRUE(conduct(settings("whole")).valid);
  const std::string journal = testing::read_bytes(folder_ / "whole/journal.0.bin"),
                    results = timeless("whole");
  const Json cost = work("whole");
  testing::Numbers numbers(1);
  int there = 0;
  for (int kill = 0; kill < 6; ++kill) {
    const std::string run = "killed" + std::to_string(kill);
    std::filesystem::create_directory(folder_ / run);
    const auto kept = static_cast<std::size_t>(numbers.uniform(0, static_cast<double>(journal.size())));
    testing::write_bytes(folder_ / (run + "/journal.0.bin"), journal.substr(0, kept));
    ExperimentSettings resumed = settings(run);
    EXPECT_THROW(conduct(resumed), Error) << "not without --resume";
    resumed.start = ExperimentSettings::Start::resume;
    resumed.say = [&](const std::string& line) { there += line.find("there already") != line.npos; };
    ASSERT_TRUE(conduct(resumed).valid);
    EXPECT_EQ(work(run), cost);
    EXPECT_TRUE(testing::read_bytes(folder_ / (run + "/journal.0.bin")) == journal);
    EXPECT_EQ(testing::read_bytes(folder_ / (run + "/tokens.h5")),
              testing::read_bytes(folder_ / "whole/tokens.h5"));
    EXPECT_EQ(timeless(run), results);
  }
  EXPECT_GT(there, 0) << "some kills left a whole batch";
}

TEST_F(Experiments, StopEarlyOnlyIfDeclaredAndWithIntervalsThatAllowIt) {
  // The bundled model on prose: without its first block it is lost, which a few windows show.
  const std::string prose = testing::read_bytes(PLAIT_SOURCE_DIR "/README.md").substr(0, 3000);
  testing::write_bytes(folder_ / "prose.txt", prose);
  ExperimentSettings s = settings("run");
  s.model = load(PLAIT_SOURCE_DIR "/weights/models/tiny-hybrid.h5");
  const char* spec =
      R"({"conditions": [{"id": "first", "site": "layer", "op": "skip", "where": {"layers": [0]}}]})";
  s.study = parse_study(read_document(spec, "spec.json"), "");
  s.study.score.nll = {folder_ / "prose.txt"};
  s.study.score.lengths = {16};
  s.study.stats.boot = 200;
  ASSERT_TRUE(conduct(s).valid);
  s.folder = folder_ / "early";
  s.study.plan.stop_rule = "anytime";
  ASSERT_TRUE(conduct(s).valid);
  const auto tokens = [&](const std::string& run) {
    for (const auto& row : table(folder_ / (run + "/results.csv")))
      if (row.at("condition_id") == "baseline" && row.at("metric") == "nll" && row.at("position_bin").empty())
        return std::stoi(row.at("n_items"));
    return 0;
  };
  EXPECT_LT(tokens("early"), tokens("run"));
  EXPECT_GE(tokens("early"), 50 * 15 - 15) << "not before the first look";
  int intervals = 0;
  for (const auto& row : table(folder_ / "early/results.csv")) {
    if (row.at("metric") != "nll" || row.at("condition_id") == "baseline" || !row.at("position_bin").empty())
      continue;
    ++intervals;
    EXPECT_EQ(row.at("status"), "stopped_early") << row.at("value");
    EXPECT_EQ(row.at("ci_method"), "confidence_sequence");
    EXPECT_TRUE(row.at("p_raw").empty());
    const double low = std::stod(row.at("ci_low")), high = std::stod(row.at("ci_high"));
    EXPECT_TRUE(low > 0 || high < 0 || (low > -0.01 && high < 0.01));
  }
  EXPECT_EQ(intervals, 1);
  // A kill in the middle, and the same end.
  const std::string journal = testing::read_bytes(folder_ / "early/journal.0.bin"),
                    results = timeless("early");
  std::filesystem::create_directory(folder_ / "again");
  testing::write_bytes(folder_ / "again/journal.0.bin", journal.substr(0, journal.size() / 2));
  s.folder = folder_ / "again";
  s.start = ExperimentSettings::Start::resume;
  ASSERT_TRUE(conduct(s).valid);
  EXPECT_EQ(timeless("again"), results);
  EXPECT_EQ(work("again"), work("early"));
}

TEST_F(Experiments, TasksAreAskedJournaledAndSummedUp) {
  ExperimentSettings s = settings("run");
  s.study.designs = parse_sweep("group:mixer.zero");
  s.study.controls = {};
  s.study.score.nll.clear();  // tasks alone
  s.study.score.tasks = {
      // the second in two batches
      Json::parse(R"({"generator": "induction", "length": 12, "items": 8})"),
      Json::parse(R"({"generator": "recall", "length": 64, "pairs": [2, 4], "items": 30})")};
  ASSERT_TRUE(conduct(s).valid);
  std::istringstream samples(testing::read_bytes(folder_ / "run/samples.jsonl"));
  std::map<std::string, int> lines;
  std::map<std::string, double> right;
  for (std::string line; std::getline(samples, line);) {
    const Json sample = Json::parse(line);
    const std::string key =
        sample["condition_id"].get<std::string>() + " " + sample["task"].get<std::string>();
    ++lines[key];
    right[key] += sample["correct"].get<bool>();
  }
  EXPECT_EQ(lines["baseline induction"], 8 * 4) << "a query per quarter";
  EXPECT_EQ(lines["group.mixer.zero.gated_delta_net recall"], 30 * (2 + 4));
  int rows = 0;
  for (const auto& row : table(folder_ / "run/results.csv")) {
    if (row.at("metric") != "exact_match" || !row.at("position_bin").empty()) continue;
    const std::string key = row.at("condition_id") + " " + row.at("dataset");
    EXPECT_NEAR(std::stod(row.at("value")), right[key] / lines[key], 1e-12) << key;
    ++rows;
  }
  EXPECT_EQ(rows, 2 * 3);
  const std::string journal = testing::read_bytes(folder_ / "run/journal.tasks.jsonl"),
                    results = timeless("run");
  const Json cost = work("run");
  EXPECT_EQ(std::count(journal.begin(), journal.end(), '\n'), 1 + 1 + 2);
  for (const std::size_t kept : {journal.size() / 3, journal.size() / 2, journal.size() - 1}) {
    const std::string run = "again" + std::to_string(kept);
    std::filesystem::create_directory(folder_ / run);
    testing::write_bytes(folder_ / (run + "/journal.tasks.jsonl"), journal.substr(0, kept));
    s.folder = folder_ / run;
    s.start = ExperimentSettings::Start::resume;
    ASSERT_TRUE(conduct(s).valid);
    EXPECT_TRUE(testing::read_bytes(folder_ / (run + "/journal.tasks.jsonl")) == journal);
    EXPECT_EQ(timeless(run), results);
    EXPECT_EQ(work(run), cost);
  }
}

TEST_F(Experiments, ALimitIsRecordedAndTheReportWarns) {
  ExperimentSettings s = settings("whole");
  s.study.designs = parse_sweep("group:mixer.zero");
  s.study.controls = {};
  s.study.score.nll.clear();
  s.study.score.tasks = {Json::parse(R"({"generator": "induction", "length": 12, "items": 8})")};
  const auto warns = [&](const std::string& run, const std::string& from) {
    const auto warnings = report::warnings_of(report::read_run(folder_ / run));
    return std::any_of(warnings.begin(), warnings.end(), [&](const std::string& warning) {
      return warning.find("Only the first 3 items were scored (" + from + "):") != std::string::npos;
    });
  };
  ASSERT_TRUE(conduct(s).valid);
  EXPECT_TRUE(report::warnings_of(report::read_run(folder_ / "whole")).empty());
  s.folder = folder_ / "limited";
  s.study.score.tasks[0]["limit"] = 3;
  const ExperimentOutcome outcome = conduct(s);
  ASSERT_TRUE(outcome.valid);
  EXPECT_EQ(outcome.run.at("limit"), 3);
  EXPECT_TRUE(warns("limited", "'limit' of the task 'induction'"));
  s.folder = folder_ / "flag";
  s.limits = ExperimentSettings::Limits::flag;
  ASSERT_TRUE(conduct(s).valid);
  EXPECT_TRUE(warns("flag", "--limit"));
}

TEST_F(Experiments, ResumingAnotherStudyIsRefusedAndChangesNothing) {
  ASSERT_TRUE(conduct(settings("run")).valid);
  const std::string before = testing::read_bytes(folder_ / "run/results.csv");
  ExperimentSettings other = settings("run");
  other.study.seed = 5;
  other.start = ExperimentSettings::Start::resume;
  EXPECT_THROW(conduct(other), Error);
  EXPECT_EQ(testing::read_bytes(folder_ / "run/results.csv"), before);
}

TEST_F(Experiments, ConstantsAreMeasuredOnTheReference) {
  const std::string reference = testing::read_bytes(folder_ / "text.txt").substr(100, 300);
  testing::write_bytes(folder_ / "reference.txt", reference);
  const std::string conditions = R"(
conditions:
  - {id: decay, site: decay, op: const}
  - {id: write, site: write, op: const, where: {layers: 0}}
  - {id: head, site: head, op: mean, where: {layers: 1}, heads: [1]}
  - {id: given, site: decay, op: const, value: -0.25}
  - {id: written, edits: [{where: blocks.2.mixer/write, operator: constant, reference: reference}]}
)";
  const auto with = [&](const std::string& run, const std::string& more) {
    ExperimentSettings s = settings(run);
    const Study study = parse_study(read_document(conditions + more, "s.yaml"), folder_ / "");
    s.study.designs.clear();
    s.study.controls = {};
    s.study.conditions = study.conditions;
    s.study.reference = study.reference;
    s.study.score.lengths = {64};
    return s;
  };
  EXPECT_THROW(conduct(with("none", "")), Error);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "none"));
  ASSERT_TRUE(conduct(with("run", "reference: {data: reference.txt, tokens: 250}")).valid);

  RecordRequest request;
  request.inner = {Site::decay, Site::write, Site::head};
  const std::vector<std::vector<Token>> texts = {ByteTokenizer().encode(reference.substr(0, 250))};
  const Recording recording = record(*model_, texts, request, {});
  const auto edit = [&](const std::string& node, Site site, Operator op) {
    Edit one;
    one.node = node;
    one.site = site;
    one.op = op;
    one.values = recording.nodes.at(node)->inner.at(site);
    return one;
  };
  std::map<std::string, EditList> expected;
  for (const char* node : {"blocks.0.mixer", "blocks.2.mixer"}) {
    expected["decay"].push_back(edit(node, Site::decay, Operator::constant));
    expected["given"].push_back(edit(node, Site::decay, Operator::constant));
    expected["given"].back().values = {-0.25};
  }
  expected["write"] = {edit("blocks.0.mixer", Site::write, Operator::constant)};
  expected["written"] = {edit("blocks.2.mixer", Site::write, Operator::constant)};
  expected["head"] = {edit("blocks.1.mixer", Site::head, Operator::mean)};
  expected["head"][0].heads = {1};
  const std::vector<Token> tokens = ByteTokenizer().encode(testing::read_bytes(folder_ / "text.txt"));
  int seen = 0;
  for (const auto& row : table(folder_ / "run/results.csv")) {
    if (row.at("metric") != "nll" || !row.at("position_bin").empty() || row.at("filter") != "none" ||
        row.at("condition_id") == "baseline")
      continue;
    // As above: f32 roundings of a few nats, averaged.
    EXPECT_NEAR(std::stod(row.at("value")), loss_alone(tokens, expected.at(row.at("condition_id")), 64), 1e-6)
        << row.at("condition_id");
    EXPECT_NE(std::stod(row.at("delta")), 0) << row.at("condition_id");
    ++seen;
  }
  EXPECT_EQ(seen, 5);
}

TEST_F(Experiments, NormsAreThoseOfTheBaselineAndHeadsThoseOfTheReference) {
  testing::write_bytes(folder_ / "reference.txt", testing::read_bytes(folder_ / "text.txt").substr(100, 300));
  const Study study = parse_study(read_document(R"(
reference: {data: reference.txt, tokens: 250}
conditions:
  - {id: heads, site: head, op: resample, where: {layers: 1}}
  - {id: own, site: norm, op: freeze}
  - {id: zeroed, site: mixer, op: zero, where: {layers: 0}}
  - id: frozen
    edits:
      - {site: mixer, op: zero, where: {layers: 0}}
      - {where: final_norm/norm, operator: freeze, reference: clean}
)",
                                                "s.yaml"),
                                  folder_ / "");
  ExperimentSettings s = settings("run");
  s.study.designs.clear();
  s.study.controls = {};
  s.study.conditions = study.conditions;
  s.study.reference = study.reference;
  s.study.score.lengths = {64};
  s.study.score.tasks = {Json::parse(R"({"generator": "induction", "length": 12, "items": 2})")};
  std::string said;
  s.say = [&](const std::string& line) { said += line + "\n"; };
  ASSERT_TRUE(conduct(s).valid);
  EXPECT_NE(said.find("'own' is asked no task"), std::string::npos);

  // Written out: each window with the values its tokens have.
  RecordRequest request;
  request.inner_rows = {Site::head, Site::norm};
  const ByteTokenizer bytes;
  const std::vector<std::vector<Token>> reference = {
      bytes.encode(testing::read_bytes(folder_ / "reference.txt").substr(0, 250))};
  const auto rows =
      record(*model_, reference, request, {}).nodes.at("blocks.1.mixer")->inner_rows.at(Site::head);
  const std::vector<Token> tokens = bytes.encode(testing::read_bytes(folder_ / "text.txt"));
  Edit zero, norm, heads;
  zero.node = "blocks.0.mixer";
  norm.node = "final_norm", norm.site = Site::norm, norm.op = Operator::freeze;
  heads.node = "blocks.1.mixer", heads.site = Site::head, heads.op = Operator::resample;
  constexpr std::size_t kWidth = 2 * 8;
  for (std::size_t p = 0; p < 64; ++p) {
    const auto row = static_cast<std::ptrdiff_t>(uniform_draw(0, 0, p) * 250) * kWidth;
    heads.values.insert(heads.values.end(), rows.begin() + row, rows.begin() + row + kWidth);
  }
  double frozen = 0, count = 0;
  for (std::size_t begin = 0; begin + 1 < tokens.size(); begin += 64) {
    const auto window = std::span(tokens).subspan(begin, std::min<std::size_t>(64, tokens.size() - begin));
    const std::vector<std::vector<Token>> text = {{window.begin(), window.end()}};
    const auto scales = record(*model_, text, request, {}).nodes.at("final_norm")->inner_rows.at(Site::norm);
    norm.values.assign(scales.begin(), scales.end());
    const auto weight = static_cast<double>(window.size() - 1);
    frozen += weight * loss_alone(window, {zero, norm}, 64);
    count += weight;
  }
  std::map<std::string, double> value;
  for (const auto& row : table(folder_ / "run/results.csv")) {
    if (row.at("metric") != "nll" || row.at("context_len") != "64" || !row.at("position_bin").empty())
      continue;
    value[row.at("condition_id")] = std::stod(row.at("value"));
  }
  // As above: f32 roundings of a few nats, averaged.
  EXPECT_NEAR(value.at("frozen"), frozen / count, 1e-6);
  EXPECT_NEAR(value.at("heads"), loss_alone(tokens, {heads}, 64), 1e-6);
  EXPECT_EQ(value.at("own"), value.at("baseline")) << "its own scales";
  EXPECT_NE(value.at("frozen"), value.at("zeroed"));
  EXPECT_NE(value.at("heads"), value.at("baseline"));
}

TEST_F(Experiments, StatesAreSwappedForThoseOfTheReference) {
  const std::string reference = testing::read_bytes(folder_ / "text.txt").substr(100, 300);
  testing::write_bytes(folder_ / "reference.txt", reference);
  const auto with = [&](const std::string& run, const std::string& more) {
    const Study study = parse_study(read_document(R"(
reference: {data: reference.txt}
conditions:
  - {id: swapped, site: state, op: swap, at: 20, where: {kind: gated_delta_net}}
)" + more,
                                                  "s.yaml"),
                                    folder_ / "");
    ExperimentSettings s = settings(run);
    s.study.designs.clear();
    s.study.controls = {};
    s.study.conditions = study.conditions;
    s.study.reference = study.reference;
    s.study.score.lengths = {64};
    return s;
  };
  EXPECT_THROW(conduct(with("none", "  - {id: other, site: state, op: swap, at: 21, where: {layers: 0}}\n")),
               Error);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "none"));
  ASSERT_TRUE(conduct(with("run", "")).valid);
  RecordRequest request;
  request.state_at = 20;
  const std::vector<std::vector<Token>> texts = {ByteTokenizer().encode(reference)};
  const References references = {
      {"ref", std::make_shared<const Recording>(record(*model_, texts, request, {}))}};
  EditList edits(2);
  for (std::size_t i = 0; i < 2; ++i) {
    edits[i].node = cat("blocks.", 2 * i, ".mixer");
    edits[i].site = Site::state;
    edits[i].op = Operator::swap;
    edits[i].begin = 20;
    edits[i].reference = "ref";
  }
  const std::vector<Token> tokens = ByteTokenizer().encode(testing::read_bytes(folder_ / "text.txt"));
  int seen = 0;
  for (const auto& row : table(folder_ / "run/results.csv")) {
    if (row.at("metric") != "nll" || !row.at("position_bin").empty() || row.at("condition_id") != "swapped")
      continue;
    // As above: f32 roundings of a few nats, averaged.
    EXPECT_NEAR(std::stod(row.at("value")), loss_alone(tokens, edits, 64, references), 1e-6);
    EXPECT_NE(std::stod(row.at("delta")), 0);
    ++seen;
  }
  EXPECT_EQ(seen, 1);
}

TEST_F(Experiments, BadInputWritesNothing) {
  ExperimentSettings s = settings("none");
  s.study.score.nll = {folder_ / "missing.txt"};
  EXPECT_THROW(conduct(s), Error);
  s = settings("none");
  s.study.score.nll.clear();
  EXPECT_THROW(conduct(s), Error);
  s = settings("none");
  s.study.designs = parse_sweep("branch.zero_rescale");
  EXPECT_THROW(conduct(s), Error);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "none"));
}

}  // namespace
}  // namespace plait::ablate
