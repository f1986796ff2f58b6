// A run folder becomes a page, tables and words: what they say is what the folder's numbers say.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "runtime/base/error.h"
#include "tests/ablate/sample_run.h"
#include "tools/ablate/report/chart.h"
#include "tools/ablate/report/controls.h"
#include "tools/ablate/report/csv.h"
#include "tools/ablate/report/curves.h"
#include "tools/ablate/report/effect.h"
#include "tools/ablate/report/page.h"
#include "tools/plot/svg.h"
#include "tools/plot/text.h"

namespace plait::ablate::report {
namespace {

using namespace plot;

namespace fs = std::filesystem;
using StudyRun = Run;  // in a test, Run is gtest's
using testing::SampleRun;
using testing::write_sample_run;

// Gone with the test program.
const fs::path& folder() {
  static const struct Folder {
    fs::path path = fs::temp_directory_path() / cat("plait-report-", ::getpid());
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
  } folder;
  return folder.path;
}

std::string sample(const std::string& name, const SampleRun& run = {}) {
  const fs::path path = folder() / name;
  fs::remove_all(path);
  write_sample_run(path, run);
  return path.string();
}

const std::string& usual() {
  static const std::string path = sample("usual");
  return path;
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

// Replaces the first `from` in a file of a run; fails the test if there is none.
void change(const fs::path& path, const std::string& from, const std::string& to) {
  std::string text = read(path);
  const std::size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  write(path, text.replace(at, from.size(), to));
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << part << "\nin: " << text.substr(0, 600);
}

Family family_of(const std::vector<Family>& all, const std::string& id) {
  for (const Family& family : all)
    if (family.id == id) return family;
  throw std::runtime_error("no family " + id);
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// What the browser test opens (tests/ablate/browser.py); does its work only when that asks.
TEST(SampleRun, IsWrittenForTheBrowser) {
  const char* where = std::getenv("PLAIT_SAMPLE_RUNS");
  if (!where) GTEST_SKIP() << "PLAIT_SAMPLE_RUNS is not set";
  write_sample_run(fs::path(where) / "study", {});
  write_sample_run(fs::path(where) / "second", {.id = "sample-2", .harm = 0.8, .arithmetic = "fast/1"});
  write_sample_run(fs::path(where) / "odd", {.id = "<odd> & \"many\"",
                                             .layers = 80,
                                             .draws = 50,
                                             .more_singles = 2000,
                                             .label_end = " <b>&\"q\" 'x'</b> $\\_{}"});
}

TEST(Csv, ReadsWhatRfc4180Allows) {
  const CsvTable table("a,b,c\r\n1,\"x, \"\"y\"\"\nz\",\n2,,true\n", "t.csv");
  ASSERT_EQ(table.size(), 2u);
  EXPECT_EQ(table.text(0, "b"), "x, \"y\"\nz");
  EXPECT_EQ(table.number(1, "a"), 2);
  EXPECT_TRUE(std::isnan(table.number(1, "b")));
  EXPECT_TRUE(table.flag(1, "c"));
  EXPECT_EQ(table.text(1, "absent"), "");
  EXPECT_EQ(CsvTable("a\n" + csv_field("q\"u,o\nte"), "t.csv").text(0, "a"), "q\"u,o\nte");
}

TEST(Csv, RefusesTheRestByLine) {
  const auto refused = [](const std::string& text) { return error_of([&] { CsvTable(text, "t.csv"); }); };
  expect_part(refused(""), "'t.csv' is empty");
  expect_part(refused("a,b\n1,2\n3\n"), "line 3 has 1 fields, the header has 2");
  expect_part(refused("a,b\n\"x\ny\",2\n1,2,3\n"), "line 4 has 3 fields");
  expect_part(refused("a\nx\"y\n"), "line 2: a quote stands inside");
  expect_part(refused("a\n\"x\"y\n"), "line 2: a quoted field is followed");
  expect_part(refused("a\n1\n\"x\n"), "line 3: a quoted field is not closed");
  expect_part(refused("a,b,a\n"), "'a' stands there twice");
  expect_part(refused("a\n1\r2\n"), "line 2: a carriage return");
  const CsvTable table("a\n1x\n", "t.csv");
  expect_part(error_of([&] { table.number(0, "a"); }),
              "'t.csv' line 2: column 'a' holds '1x', which is no number");
  expect_part(error_of([&] { table.flag(0, "a"); }), "neither true nor false");
  expect_part(error_of([&] { table.require({"a", "b", "c"}); }), "'t.csv' lacks 'b', 'c'");
}

TEST(Layers, AreReadInEveryFormInUse) {
  const std::vector<int> layers = {0, 2, 3, 4, 9};
  for (const char* text : {"0 2 3 4 9", "0,2-4,9", "[0,2,3,4,9]", "9;2-4;0"})
    EXPECT_EQ(parse_layers(text), layers) << text;
  EXPECT_TRUE(parse_layers("").empty());
  for (const char* text : {"x", "3-1", "-1", "1-", "2x", "999999999999", "1--2"})
    EXPECT_THROW(parse_layers(text), std::invalid_argument) << text;
}

TEST(Text, IsEscapedForWhereItGoes) {
  EXPECT_EQ(escape_html("<a href=\"x\">&'\x01"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\uFFFD");
  EXPECT_EQ(escape_html("\xff"), "\uFFFD");
  EXPECT_EQ(escape_latex("50% & a_b {x} \\ ~^#$ \u22121"),
            "50\\% \\& a\\_b \\{x\\} \\textbackslash{} \\textasciitilde{}\\textasciicircum{}\\#\\$ $-$1");
}

TEST(Text, NumbersReadWell) {
  EXPECT_EQ(signed_decimal(-0.125, 2), "\u22120.12");
  EXPECT_EQ(signed_decimal(-0.001, 2), "0.00");  // no minus zero
  EXPECT_EQ(signed_decimal(1.5, 1), "+1.5");
  EXPECT_EQ(grouped(1234567), "1,234,567");
  EXPECT_EQ(grouped(-123), "-123");
  EXPECT_EQ(probability(0.0004), "p < 0.001");
  EXPECT_EQ(probability(0.0133), "p = 0.013");
  EXPECT_EQ(blocks({0, 1, 2, 5}), "blocks 0\u20132 and 5");
  EXPECT_EQ(with_interval({0.8124, 0.7412, 0.8836}, "nats"), "0.812 nats (0.741 to 0.884)");
}

TEST(Figures, LabelsKeepTheirDistance) {
  const auto placed = spread({10, 11, 12, 90}, 14, 0, 100);
  for (std::size_t i = 1; i < placed.size(); ++i) EXPECT_GE(placed[i] - placed[i - 1], 14 - 1e-9);
  EXPECT_LE(placed.back(), 100);
}

// x and y of every text element of a figure that says `text`.
std::vector<std::pair<double, double>> places_of(const std::string& svg, const std::string& text) {
  std::vector<std::pair<double, double>> places;
  std::istringstream lines(svg);
  for (std::string line; std::getline(lines, line);) {
    double x = 0, y = 0;
    const std::size_t at = line.find("\" x=\"");
    if (line.find(">" + text + "</text>") == line.npos || at == line.npos) continue;
    if (std::sscanf(line.c_str() + at, "\" x=\"%lf\" y=\"%lf\"", &x, &y) == 2) places.push_back({x, y});
  }
  return places;
}

TEST(Figures, ValuesPastTheScaleDoNotLieOnEachOther) {
  LineChart chart;
  chart.panels.push_back({"panel", {}});
  for (const double last : {6.5, 7.25, 6.5}) {
    LineChart::Series series{"", 0, {}};
    for (int x = 0; x < 16; ++x)
      series.points.push_back(
          {static_cast<double>(x), {x == 15 ? last : 0.1, kNone, kNone}, Certainty::clear, 0, ""});
    chart.panels[0].series.push_back(std::move(series));
  }
  const std::string svg = draw(chart, 343).str();
  const auto low = places_of(svg, "+6.50"), high = places_of(svg, "+7.25");
  ASSERT_EQ(low.size(), 1u) << "two points that say the same";
  ASSERT_EQ(high.size(), 1u);
  EXPECT_GE(std::abs(low[0].second - high[0].second), kLabelSize);
}

TEST(Figures, TicksStayInside) {
  ForestChart chart;
  for (const double value : {0.001, 0.013, 0.027})
    chart.rows.push_back({"row", {value, kNone, kNone}, Certainty::clear, 0, kNone, ""});
  const std::string svg = draw(chart, 343).str();
  const auto zero = places_of(svg, "0.00");
  ASSERT_EQ(zero.size(), 1u);
  EXPECT_GE(zero[0].first, text_width("0.00", kLabelSize) / 2);
}

TEST(Figures, AnOutlierDoesNotFlattenTheRest) {
  EXPECT_LT(readable_range({0.1, 0.2, 0.1, 0.15, 0.2, 0.1, 6}).high, 0.3);
  EXPECT_GT(readable_range({0.1, 0.2, 0.4, 0.6, 0.9, 1.1}).high, 1.1);
  EXPECT_LT(readable_range({-0.5, 0.1}).low, -0.5);
}

TEST(Folder, IsRefusedWithASentence) {
  expect_part(error_of([] { read_run("/nowhere"); }), "'/nowhere' is no folder");
  const auto refused = [](const char* file, const std::string& from, const std::string& to) {
    const fs::path path = sample("broken", {.draws = 2});
    change(path / file, from, to);
    return error_of([&] { read_run(path.string()); });
  };
  expect_part(refused("run.json", "\"layer_types\"", "\"kinds\""), "run.json' lacks the key 'layer_types'");
  expect_part(refused("run.json", "{", "["), "run.json");
  expect_part(refused("conditions.csv", ",alpha,", ",strength,"), "conditions.csv' lacks 'alpha'");
  expect_part(refused("results.csv", ",p_adj,", ",p,"), "results.csv' lacks 'p_adj'");
  expect_part(refused("results.csv", "sample-1,baseline", "sample-1,nobody"),
              "line 2: column 'condition_id' holds 'nobody', which is no condition");
  expect_part(refused("results.csv", "1.3905", "1.39o5"), "holds '1.39o5', which is no number");
  expect_part(refused("conditions.csv", "group-mlp", "group-ttt_linear"),
              "names a condition of an earlier line");
  expect_part(refused("controls.csv", "count,0,random", "count,0,rand0m"), "controls.csv' line 2");
  expect_part(refused("results.csv", "wikitext-2,test,1,0,2048,,nll", "tiny-shakespeare,test,1,0,2048,,nll"),
              "in an earlier line already");
  expect_part(refused("checks.json", "\"passed\": true", "\"passed\": 1"), "neither true, false nor null");
}

TEST(Folder, WithoutResultsNamesTheGateThatFailed) {
  const fs::path path = sample("gated", {.draws = 2});
  fs::remove(path / "results.csv");
  expect_part(error_of([&] { read_run(path.string()); }), "the study was not finished");
  write(
      path / "checks.json",
      R"({"passed": false, "checks": [{"name": "C1", "passed": true}, {"name": "C4", "passed": false, "detail": "row 7 differs"}]})");
  expect_part(error_of([&] { read_run(path.string()); }), "because check C4 failed: row 7 differs");
}

TEST(Findings, SayWhatTheNumbersSay) {
  const StudyRun run = read_run(usual());
  const auto all = families(run);
  std::set<std::string> designs;
  for (const Family& family : all) designs.insert(family.design);
  EXPECT_EQ(designs, (std::set<std::string>{"group", "random", "single", "third", "window", "cumulative",
                                            "leave_in", "pair", "shapley", "dose", "spec", "context",
                                            "position", "distance", "remembrance", "pareto"}));

  const Family mixers = family_of(all, "single-mixer-zero");
  ASSERT_EQ(mixers.rows.size(), 24u);
  const Result* top = nullptr;
  int worse = 0;
  for (const Result& r : run.results) {
    const ConditionRow& c = run.condition(r);
    if (r.measure != run.primary || c.design != "single" || c.site != "mixer") continue;
    if (!top || r.delta > top->delta) top = &r;
    worse += r.p_adj < 0.05 && r.delta > 0;
  }
  EXPECT_EQ(mixers.rows.front(), top);
  expect_part(mixers.headline, cat("block ", run.condition(*top).layers[0], " (softmax attention)"));
  expect_part(mixers.headline, with_interval(effect_of(*top, run.measure(*top)), "nats per token"));
  expect_part(mixers.detail, cat(worse, " of 24 make the model clearly worse"));
  expect_part(mixers.fine_print, "72 comparisons, adjusted by Benjamini\u2013Hochberg");
  expect_part(mixers.fine_print, "Intervals: 95 %, cluster bootstrap over 120 documents");
}

TEST(Findings, TellTheLongestOfManySeriesFirst) {
  const auto cumulative = [](const std::string& path) {
    return family_of(families(read_run(path)), "cumulative");
  };
  expect_part(cumulative(usual()).headline,
              "3 (2 for sure) with mixer.zero from the top; none with mixer.zero from the bottom.");
  // Windows named as if they went on removing blocks of one kind: sets of other kinds are series of their own
  // then, and many of them.
  const fs::path path = sample("series", {.draws = 2});
  for (const int n : {0, 1}) {
    const std::string series = cat("cumulative.mixer.zero.mamba2.first.", n + 1);
    for (const char* file : {"conditions.csv", "results.csv"}) {
      std::istringstream lines(read(path / file));
      std::string text;
      for (std::string line; std::getline(lines, line); text += line + "\n") {
        const std::string id = cat("window-2-", n, ","), design = ",window,";
        const std::size_t at = line.find(id);
        if (at == line.npos) continue;
        line.replace(at, id.size(), series + ",");
        if (line.find(design) != line.npos) line.replace(line.find(design), design.size(), ",cumulative,");
      }
      write(path / file, text);
    }
  }
  const Family family = cumulative(path.string());
  EXPECT_EQ(count_of(family.headline, " with "), 1u) << family.headline;
  expect_part(family.headline, "at most ");
  expect_part(family.detail, "In other series: ");
  expect_part(family.detail,
              "2 with mixer.zero of gated delta net + ttt linear from the bottom and mixer.zero");
  expect_part(family.detail, "; none with the other ");
  EXPECT_LE(count_of(family.detail, ";"), 4u) << "one part for each amount";
}

TEST(Findings, TellHowFarBackTheModelRemembers) {
  const StudyRun run = read_run(usual());
  const auto curves = remembrance_curves(run);
  ASSERT_EQ(curves.size(), 6u) << "three cuts on two texts";
  for (const Curve& curve : curves) {
    ASSERT_EQ(curve.points.size(), 4u);
    for (std::size_t i = 0; i < 4; ++i)
      EXPECT_EQ(curve.points[i].x, std::max(1.0, std::pow(4.0, i) * 4 * (i > 0)));
  }
  // The longest past, on the primary text: 0.1 nats are reached in the second bin.
  const Family family = family_of(families(run), "remembrance");
  EXPECT_EQ(family.rows.size(), 24u);
  expect_part(family.headline,
              "In tiny-shakespeare, 16 tokens of history are enough to come within 0.1 nats");
  expect_part(family.detail, "With nothing remembered from before token 1024 the next token\u2019s");
  for (const std::size_t i : {0u, 1u})
    expect_part(family.detail,
                with_interval(effect_of(*curves[2].points[i].result, run.measures[0]), "nats"));
  expect_part(family.detail, "In wikitext-2, 64 tokens of history are enough");
  expect_part(family.fine_print, "Intervals: 95 %, cluster bootstrap over 120 documents");
  const std::string page = page_of(run, nullptr, "tables");
  expect_part(page, "id=\"remembrance\"");
  expect_part(page, "id=\"remembrance-narrow-t\"");
  expect_part(summary_of(run, nullptr), cat("How far back it remembers\n  ", family.headline));
  const CsvTable table(tables_of(run, nullptr).at("remembrance.csv"), "remembrance");
  EXPECT_EQ(table.text(0, "position_bin"), "history 1-15");
  EXPECT_EQ(table.text(23, "dataset"), "wikitext-2");
}

TEST(Findings, SayWhereNoHistoryIsEnough) {
  const fs::path path = sample("remembers", {.draws = 2});
  std::string text = read(path / "results.csv");
  for (std::size_t at = text.find(",history 256-1023,effrem"); at != text.npos;
       at = text.find(",history 256-1023,effrem", at + 1)) {
    const std::size_t delta = text.find(",0,", at) + 3;
    text.replace(delta, text.find(',', delta) - delta, "0.25");
  }
  write(path / "results.csv", text);
  const StudyRun run = read_run(path.string());
  const Family family = family_of(families(run), "remembrance");
  expect_part(family.headline, "256 tokens of history are not enough to come within 0.1 nats");
  expect_part(family.detail, "and 0.25");
}

TEST(Findings, GiveNoSizeToACollapse) {
  const StudyRun run = read_run(usual());
  const std::string page = page_of(run, nullptr, "tables"), summary = summary_of(run, nullptr);
  int collapsed = 0;
  for (const Result& r : run.results) {
    if (!r.collapsed) continue;
    ++collapsed;
    if (r.measure != run.primary) continue;
    const Effect e = effect_of(r, run.measure(r));
    // A size of a collapsed condition would stand in the page with its sign and its interval's digits.
    EXPECT_EQ(page.find(cat(run.condition(r).name(), ": ", short_amount(e))), std::string::npos)
        << run.condition(r).id;
    EXPECT_EQ(summary.find(amount(e, "nats")), std::string::npos) << run.condition(r).id;
  }
  EXPECT_GT(collapsed, 10);
  expect_part(family_of(families(run), "group").headline, "The model collapses under all MLPs");
}

TEST(Findings, RankTargetsAmongTheirControls) {
  const StudyRun run = read_run(usual());
  const auto sets = control_sets(run);
  ASSERT_EQ(sets.size(), 6u);
  for (const ControlSet& set : sets) {
    ASSERT_EQ(set.draws.size(), 199u);
    int as_bad = 0;
    for (const auto& draw : set.draws) as_bad += draw.collapsed || draw.harm >= set.target->delta;
    EXPECT_EQ(set.as_bad, as_bad);
    // The engine ranked one way of matching itself; its adjusted p is the one that counts.
    EXPECT_EQ(set.rank != nullptr, set.match_kind == "count");
    EXPECT_DOUBLE_EQ(set.p(), set.rank ? 0.04 : (as_bad + 1) / 200.0);
  }
  const Family family = family_of(families(run), "targets");
  expect_part(family.headline, cat("of random sets, ", sets[0].as_bad, " of 199 of as many blocks (",
                                   probability(sets[0].p()), ")"));
  expect_part(family.headline, "Chance does not explain the effect of all softmax_attention mixers");
  expect_part(family.detail, "by some yardsticks, not by all, the effect of all gated_delta_net mixers");
  expect_part(family.detail,
              "lies 0.510 nats per token (0.420 to 0.600) from the mean of random sets of as many blocks");
}

TEST(Findings, CompareAPairWithItsParts) {
  const StudyRun run = read_run(usual());
  const Family pairs = family_of(families(run), "pair");
  ASSERT_FALSE(pairs.rows.empty());
  for (const Result* r : pairs.rows) {
    double sum = 0;
    for (const int layer : run.condition(*r).layers)
      for (const Result& single : run.results)
        if (single.measure == run.primary && run.condition(single).id == cat("single-mixer-", layer))
          sum += single.delta;
    EXPECT_DOUBLE_EQ(sum_of_parts(run, *r), sum);
  }
}

TEST(Findings, NoRemovalBeatsTheFront) {
  const StudyRun run = read_run(usual());
  for (const Saving& saving : savings()) {
    const auto front = pareto_front(run, saving);
    for (const Result* on : front)
      for (const Result* other : removals(run))
        EXPECT_FALSE(other->delta < on->delta && saving.of(run, *other) > saving.of(run, *on))
            << saving.id << " " << run.condition(*on).id;
  }
  EXPECT_FALSE(pareto_front(run, savings()[0]).empty());
}

TEST(Findings, FollowBranchesApart) {
  const fs::path path = sample("branches", {.layers = 6, .draws = 2});
  // A second component of block 0, as in parallel blocks.
  change(path / "conditions.csv",
         "single-mixer-1,mixer.zero block 1,\"{\"\"alpha\"\":1.0,\"\"heads\"\":\"\"\"\",\"\"layers\"\":[1],",
         "single-mixer-1,mixer.zero block 1,\"{\"\"layers\"\":[0],");
  change(path / "conditions.csv", ",single,gated_delta_net,mixer,1,", ",single,gated_delta_net,mixer,0,");
  const auto curves = single_curves(read_run(path.string()));
  std::set<std::string> names;
  for (const Curve& curve : curves) names.insert(curve.name);
  EXPECT_TRUE(names.contains("mixer.zero of softmax attention"));
  EXPECT_TRUE(names.contains("mixer.zero of gated delta net"));
  EXPECT_TRUE(names.contains("mlp.zero"));
}

// Every element that is opened is closed, in order.
void expect_balanced(const std::string& page) {
  static const std::set<std::string> empty = {"meta", "link", "!doctype"};
  std::vector<std::string> open;
  for (std::size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at + 1)) {
    const std::size_t end = page.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = page.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" \n/", tag[0] == '/'));
    if (tag[0] == '/') {
      ASSERT_FALSE(open.empty()) << tag;
      ASSERT_EQ("/" + open.back(), name) << "at " << page.substr(at, 80);
      open.pop_back();
    } else if (tag.back() != '/' && !empty.contains(name)) {
      open.push_back(name);
    }
  }
  EXPECT_TRUE(open.empty());
}

TEST(Page, StandsAlone) {
  const StudyRun run = read_run(usual());
  const std::string page = page_of(run, nullptr, "tables");
  expect_balanced(page);
  for (const char* outside : {"<script", "http", "src=", "url(", "@import", "<img"})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  EXPECT_EQ(count_of(page, "<svg"), count_of(page, "<desc id="));
  EXPECT_EQ(count_of(page, "<svg"), count_of(page, "aria-labelledby"));
  EXPECT_EQ(page.find("nan"), std::string::npos);
  for (const char* part : {"51c0ffee", "9f2b6a1c0d", "plait ablate paper-hybrid.h5 --study full", "exact/1",
                           "id=\"pareto\"", "id=\"dose\"", "id=\"checks\"", "does not apply"})
    expect_part(page, part);
  EXPECT_EQ(page, page_of(read_run(usual()), nullptr, "tables"));
}

TEST(Page, EscapesWhateverALabelHolds) {
  const StudyRun run = read_run(sample(
      "odd", {.id = "<i>&", .layers = 6, .draws = 5, .label_end = " <script>alert(\"&\")</script> 50% a_b"}));
  const std::string page = page_of(run, nullptr, "tables");
  expect_balanced(page);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  expect_part(page, "&lt;script&gt;alert(&quot;&amp;&quot;)");
  const auto files = tables_of(run, nullptr);
  const std::string& latex = files.at("group.tex");
  expect_part(latex, "\\textless{}script\\textgreater{}alert(''\\&'')");
  expect_part(latex, "50\\% a\\_b");
  expect_part(files.at("group.csv"), "alert(\"\"&\"\")");
}

TEST(Page, HoldsThousandsOfConditions) {
  const StudyRun run = read_run(sample("many", {.layers = 48, .draws = 20, .more_singles = 3000}));
  ASSERT_GT(run.conditions.size(), 3000u);
  const std::string page = page_of(run, nullptr, "tables");
  expect_balanced(page);
  EXPECT_LT(page.size(), 3u << 20);
  expect_part(page, "more rows in &#39;tables/part.csv&#39;");
  expect_part(page, "The 24 most harmful of 3,000");
  EXPECT_EQ(count_of(tables_of(run, nullptr).at("part.csv"), "\n"), 3001u);
}

TEST(Page, SaysWhatMakesARunDoubtful) {
  const fs::path path = sample("doubtful", {.draws = 2});
  change(path / "run.json", "\"finished\": \"2026-11-25T10:14:31Z\"", "\"limit\": 50");
  change(path / "results.csv", ",ok,", ",failed,");
  change(path / "checks.json", "\"passed\": true", "\"passed\": false");
  const StudyRun run = read_run(path.string());
  const std::string page = page_of(run, nullptr, "tables");
  for (const char* part : {"Only the first 50 items", "was not finished", "1 result failed",
                           "Check C1 failed", "do not use these numbers"})
    expect_part(page, part);
  expect_part(summary_of(run, nullptr), "CAUTION: Only the first 50 items");
}

TEST(Page, DoesWithoutIntervals) {
  const fs::path path = sample("one-document", {.layers = 6, .draws = 3});
  CsvTable table(read(path / "results.csv"), "results.csv");
  std::string text = read(path / "results.csv");
  text = text.substr(0, text.find('\n') + 1);
  for (std::size_t r = 0; r < table.size(); ++r) {
    const auto cell = [&](const char* c) { return csv_field(table.text(r, c)); };
    text += cat("sample-1,", cell("condition_id"), ",baseline,", cell("dataset"), ",test,1,0,",
                cell("context_len"), ",", cell("position_bin"), ",", cell("metric"), ",", cell("filter"), ",",
                cell("higher_is_better"), ",", cell("value"), ",", cell("baseline_value"), ",", cell("delta"),
                ",900,1,,,,,,,,,none,x,40,,,,,,", cell("collapsed"), ",,ok,,\n");
  }
  write(path / "results.csv", text);
  const StudyRun run = read_run(path.string());
  const std::string page = page_of(run, nullptr, "tables");
  expect_balanced(page);
  EXPECT_EQ(page.find("nan"), std::string::npos);
  expect_part(page, "No intervals.");
  expect_part(family_of(families(run), "single-mixer-zero").headline,
              "no effect that stands out from chance");
}

TEST(Tables, HoldTheNumbersOfTheRun) {
  const StudyRun run = read_run(usual());
  const auto files = tables_of(run, nullptr);
  for (const Family& family : families(run)) {
    const CsvTable table(files.at(family.id + ".csv"), family.id);
    ASSERT_EQ(table.size(), family.rows.size());
    for (std::size_t r = 0; r < table.size(); ++r) {
      EXPECT_EQ(table.number(r, "effect"), family.rows[r]->delta);
      EXPECT_EQ(table.text(r, "condition_id"), run.condition(*family.rows[r]).id);
      EXPECT_EQ(table.text(r, "verdict") == "collapsed", family.rows[r]->collapsed);
    }
    const std::string& latex = files.at(family.id + ".tex");
    expect_part(latex, "\\toprule");
    EXPECT_EQ(count_of(latex, "\\\\\n"), family.rows.size() + 1) << family.id;
  }
  EXPECT_EQ(CsvTable(files.at("control-draws.csv"), "draws").size(), 6u * 199);
  for (const char* taken : {"results.csv", "conditions.csv", "controls.csv"})
    EXPECT_FALSE(files.contains(taken)) << "would replace the run's own";
}

TEST(Compare, FindsTheSameRunEqual) {
  const StudyRun left = read_run(usual()), right = read_run(usual());
  const Comparison c = compare(left, right);
  EXPECT_TRUE(c.differences.empty());
  EXPECT_GT(c.pairs.size(), 200u);
  expect_part(c.headline, "the same numbers to the last digit");
}

TEST(Compare, MarksAnotherArithmeticAndOtherNumbers) {
  const StudyRun left = read_run(usual()),
                 right = read_run(sample("other", {.id = "sample-2", .harm = 0.5, .arithmetic = "fast/1"}));
  const Comparison c = compare(left, right);
  ASSERT_EQ(c.differences.size(), 1u);
  EXPECT_EQ(c.differences[0].what, "arithmetic");
  for (const auto& pair : c.pairs) EXPECT_EQ(left.condition(*pair.left).id, right.condition(*pair.right).id);
  expect_part(c.headline, "differ by more than their intervals");
  const std::string page = page_of(left, &c, "tables");
  expect_balanced(page);
  expect_part(page, "Not the same arithmetic");
  EXPECT_EQ(json_of(left, &c)["compare"]["differences"].size(), 1u);
  EXPECT_TRUE(tables_of(left, &c).contains("compare.csv"));
}

TEST(Compare, RefusesWhatCannotBeCompared) {
  const StudyRun left = read_run(usual());
  const StudyRun data = read_run(sample("data", {.draws = 2, .data_sha256 = "0ther"}));
  const std::string error = error_of([&] { compare(left, data); });
  expect_part(error, "'tiny-shakespeare' has sha256 '9f2b6a1c0d' in the first and '0ther' in the second");
  const fs::path path = sample("disjoint", {.draws = 2});
  std::string text = read(path / "conditions.csv");
  for (std::size_t at = text.find("sha-"); at != std::string::npos; at = text.find("sha-", at))
    text.replace(at, 4, "SHA-");
  for (std::size_t at = text.find(",group,"); at != std::string::npos; at = text.find(",group,", at))
    text.replace(at, 7, ",GROUP,");
  for (const char* design :
       {",single,", ",third,", ",window,", ",cumulative,", ",leave_in,", ",pair,", ",dose,", ",spec,"})
    for (std::size_t at = text.find(design); at != std::string::npos; at = text.find(design, at))
      text.replace(at, std::string(design).size(), ",other,");
  write(path / "conditions.csv", text);
  const StudyRun disjoint = read_run(path.string());
  expect_part(error_of([&] { compare(left, disjoint); }), "no condition is in both");
}

// The program.

struct Outcome {
  int code;
  std::string out;
};

Outcome plait(const std::string& arguments) {
  const fs::path out = folder() / "out";
  const int status =
      std::system(cat("'", PLAIT_PROGRAM, "' ", arguments, " > '", out.string(), "' 2>&1").c_str());
  return {WEXITSTATUS(status), read(out)};
}

TEST(Program, WritesPageAndTables) {
  const std::string run = sample("program", {.layers = 12, .draws = 19});
  const Outcome first = plait(cat("report '", run, "'"));
  EXPECT_EQ(first.code, 0) << first.out;
  expect_part(first.out, "What each part of paper-hybrid contributes");
  const std::string page = read(fs::path(run) / "report.html");
  EXPECT_TRUE(page.starts_with("<!doctype html>"));
  EXPECT_TRUE(fs::exists(fs::path(run) / "tables/single-layer-skip.tex"));

  const fs::path elsewhere = folder() / "elsewhere.html";
  const Outcome second = plait(cat("report '", run, "' --html '", elsewhere.string(), "' --latex '",
                                   (folder() / "tex").string(), "' --json - --quiet"));
  EXPECT_EQ(second.code, 0) << second.out;
  const Json json = Json::parse(second.out);
  EXPECT_EQ(json["html"], elsewhere.string());
  EXPECT_EQ(json["checks"].size(), 10u);
  EXPECT_TRUE(fs::exists(folder() / "tex/group.csv"));
}

TEST(Program, WritesNothingOnBadInput) {
  const fs::path run = sample("bad", {.draws = 2});
  change(run / "results.csv", "1.3905", "1.39o5");
  const Outcome outcome = plait(cat("report '", run.string(), "'"));
  EXPECT_EQ(outcome.code, 3);
  EXPECT_TRUE(outcome.out.starts_with("plait: error: ")) << outcome.out;
  EXPECT_EQ(count_of(outcome.out, "\n"), 1u);
  EXPECT_FALSE(fs::exists(run / "report.html"));
  EXPECT_FALSE(fs::exists(run / "tables"));
  EXPECT_EQ(plait("report").code, 2);
}

}  // namespace
}  // namespace plait::ablate::report
