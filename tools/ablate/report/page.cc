#include "tools/ablate/report/page.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "tools/ablate/report/controls.h"
#include "tools/ablate/report/effect.h"
#include "tools/ablate/report/figures.h"
#include "tools/plot/style.h"
#include "tools/plot/text.h"
#include "tools/program.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

constexpr std::size_t kMostRows = 250;  // of a table on the page

struct Meaning {
  const char* name;
  const char* text;
};
constexpr Meaning kChecks[] = {{"C1", "An empty intervention changes no bit"},
                               {"C2", "Strength 0 changes no bit"},
                               {"C3", "Skipping a block equals the model built without it"},
                               {"C4", "A condition in the sweep equals its solo run, bit for bit"},
                               {"C5", "Any split of the text gives the same bits"},
                               {"C6", "Saving, loading and rolling back change no bit"},
                               {"C7", "A silenced mixer does not depend on whether its state goes on"},
                               {"C8", "The mean of what is constant changes nothing"},
                               {"C9", "The delta rule\u2019s effective matrix reproduces its output"},
                               {"C10", "In double precision errors fall by about eight orders"}};

std::string meaning_of(const Check& check) {
  for (const Meaning& m : kChecks)
    if (check.id == m.name) return m.text;
  return check.name;
}

constexpr const char* kHowToRead =
    "<strong>How to read the figures.</strong> Colour and shape of a mark are the kind of block; grey is for "
    "anything that is of no "
    "one kind. Filled marks are clear effects (p below 0.05 after adjustment for the number of comparisons), "
    "hollow ones are not. "
    "\u00d7 marks a collapse: the model does no better than a uniform guess, so its loss has no size worth "
    "quoting. Lines and bands "
    "are intervals. Point at a mark to read it.";

std::string tag(const std::string& name, const std::string& text) {
  return text.empty() ? std::string() : cat("<", name, ">", escape_html(text), "</", name, ">\n");
}
std::string paragraph(const std::string& style, const std::string& text) {
  return text.empty() ? std::string() : cat("<p class=\"", style, "\">", escape_html(text), "</p>\n");
}

// Numbers of the whole model in the primary measure.
const Result* any_result(const Run& run) {
  const auto found = std::find_if(run.results.begin(), run.results.end(),
                                  [&](const Result& r) { return r.measure == run.primary; });
  return found == run.results.end() ? nullptr : &*found;
}

std::string deck(const Run& run) {
  const Result* r = any_result(run);
  const Measure& measure = run.measures[static_cast<std::size_t>(run.primary)];
  const MetricText metric = metric_text(measure.metric);
  const auto random = std::count_if(run.conditions.begin(), run.conditions.end(),
                                    [](const ConditionRow& c) { return c.design == "random"; });
  std::string text = cat(counted(static_cast<long long>(run.conditions.size()), "version"),
                         " of the model, each with something taken away or changed",
                         random > 0 ? cat(", ", grouped(random), " of them at random") : "", ", read ",
                         measure.dataset.empty() ? "the same text" : measure.dataset, ". ");
  if (r)
    text +=
        cat("The whole model\u2019s ", metric.title, " there is ", decimal(metric.factor * r->baseline, 3),
            " ", metric.unit, "; every number below says how much worse a version does on the same ",
            r->n_items > 0 ? counted(r->n_items, "token") : "tokens", ".");
  return text;
}

std::string alarms(const Run& run) {
  std::string text;
  for (const std::string& warning : warnings_of(run))
    text += cat("<p class=\"alarm\"><strong>Caution.</strong> ", escape_html(warning), "</p>\n");
  return text;
}

std::string head(const Run& run, const std::string& title) {
  return cat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
      "<meta name=\"generator\" content=\"plait report\">\n<link rel=\"icon\" href=\"data:,\">\n<title>",
      escape_html(title), "</title>\n<style>", style_sheet(), "</style>\n</head>\n<body>\n<main>\n<header>\n",
      paragraph("kicker", cat("Ablation study \u00b7 ", run.id())), tag("h1", title),
      paragraph("deck", deck(run)), alarms(run), model_figure(run), "<p class=\"how\">", kHowToRead,
      "</p>\n");
}

std::string folded(const std::string& title, const std::string& body) {
  return cat("<details><summary>", escape_html(title), "</summary>\n", body, "</details>\n");
}

std::string where(const std::string& tables, const std::string& id) {
  return cat("'", tables, "/", id, ".csv'");
}

std::string numbers(const Run& run, const Family& family, const std::string& tables) {
  const Table table = family_table(run, family);
  return folded(cat("All numbers: ", family.kicker, " (",
                    counted(static_cast<long long>(table.rows.size()), "row"), ")"),
                html_of(table, kMostRows, where(tables, family.id)));
}

std::string open_section(const std::string& id, const std::string& kicker, const std::string& headline) {
  return cat("<section id=\"", id, "\">\n", paragraph("kicker", kicker), tag("h2", headline));
}

std::string family_section(const Run& run, const Family& family, const std::string& tables) {
  std::string text = open_section(family.id, family.kicker, family.headline);
  text += tag("p", family.detail) + figures_of(run, family) + paragraph("fine", family.fine_print);
  if (family.design == "group")
    text += folded("Every measure of these conditions",
                   html_of(measure_table(run, family), kMostRows, where(tables, "all-measures")));
  return text + numbers(run, family, tables) + "</section>\n";
}

// Single sites share their figures: one section, led by the first intervention, the others under it.
std::string single_section(const Run& run, const std::vector<Family>& all, const std::string& tables) {
  std::string text, tail, fine_print;
  for (const Family& family : all) {
    if (family.design != "single") continue;
    if (text.empty())
      text = open_section("single", "One part at a time", family.headline) + tag("p", family.detail);
    else
      text += cat("<p><strong>", escape_html(family.headline), "</strong> ", escape_html(family.detail),
                  "</p>\n");
    if (family.fine_print != fine_print) tail += paragraph("fine", family.fine_print);
    fine_print = family.fine_print;
    tail += numbers(run, family, tables);
  }
  return text.empty() ? text : text + single_figures(run) + tail + "</section>\n";
}

std::string comparison_section(const Comparison& c, const std::string& tables) {
  std::string text = open_section("compare", cat("Beside ", c.right->id()), c.headline);
  for (const auto& d : c.differences)
    text +=
        cat("<p class=\"alarm\"><strong>Not the same ", escape_html(d.what), ".</strong> First run: <code>",
            escape_html(d.left), "</code>; second: <code>", escape_html(d.right), "</code></p>\n");
  text += tag("p", c.detail) + comparison_figures(c);
  return text +
         folded("All conditions in both runs",
                html_of(comparison_table(c), kMostRows, where(tables, "compare"))) +
         "</section>\n";
}

std::string check_section(const Run& run) {
  const auto failed = std::count_if(run.checks.begin(), run.checks.end(),
                                    [](const Check& c) { return c.outcome == Check::Outcome::failed; });
  const auto passed = std::count_if(run.checks.begin(), run.checks.end(),
                                    [](const Check& c) { return c.outcome == Check::Outcome::passed; });
  std::string text = open_section(
      "checks", "Can the engine be trusted?",
      failed > 0
          ? cat(counted(failed, "check"), " failed: do not use these numbers.")
          : cat("All ", passed, " checks that apply to this model passed before a result was written."));
  text += "<ul class=\"checks\">\n";
  for (const Check& check : run.checks) {
    const bool bad = check.outcome == Check::Outcome::failed;
    const char* verdict = bad                                       ? "failed"
                          : check.outcome == Check::Outcome::passed ? "passed"
                                                                    : "does not apply";
    text += cat("<li><span>", escape_html(check.id), "</span><div><p>", escape_html(meaning_of(check)),
                ": <span class=\"", bad ? "failed" : "passed", "\">", verdict, "</span></p>",
                paragraph("fine", check.detail), "</div></li>\n");
  }
  return text + "</ul>\n</section>\n";
}

// "mode exact, version 1": an object without its brackets.
std::string in_words(const Json& manifest, const char* path) {
  const Json::json_pointer pointer(std::string("/") + path);
  if (!manifest.contains(pointer) || !manifest[pointer].is_object()) return text_at(manifest, path);
  std::string words;
  for (const auto& [key, value] : manifest[pointer].items())
    words += cat(words.empty() ? "" : ", ", spaced(key), " ",
                 value.is_null() ? "none" : text_at(manifest[pointer], key));
  return words;
}

std::string manifest_section(const Run& run) {
  std::string text =
      open_section("manifest", "How it was made", "Everything needed to run this study again.");
  text += "<dl>\n";
  const auto entry = [&](const std::string& term, const std::string& value) {
    if (!value.empty())
      text += cat("<dt>", escape_html(term), "</dt><dd><code>", escape_html(value), "</code></dd>\n");
  };
  const auto field = [&](const std::string& term, const char* path) {
    entry(term, in_words(run.manifest, path));
  };
  field("Command", "cmdline");
  field("Run", "run_id");
  field("Started", "started");
  field("Finished", "finished");
  field("Model", "model/name");
  field("Family", "model/family");
  field("Parameters", "model/params");
  field("Weights", "model/dtype");
  field("Weights, sha256", "model/hdf5_sha256");
  field("Tokenizer, sha256", "tokenizer_sha256");
  if (run.manifest.contains("data"))
    for (const Json& data : run.manifest["data"])
      entry("Data: " + text_at(data, "name"),
            cat(text_at(data, "n_docs"), " documents, ", text_at(data, "n_tokens"), " tokens, sha256 ",
                text_at(data, "sha256")));
  field("Arithmetic", "arithmetic");
  field("Numerics", "numerics");
  field("Seeds", "seeds");
  field("Plan", "plan");
  field("Engine", "engine");
  field("Machine", "device");
  field("Cost", "cost");
  return text + "</dl>\n</section>\n";
}

std::string title_of_page(const Run& run) { return cat("What each part of ", run.model(), " contributes"); }

std::string contents(const std::vector<Family>& all, const Comparison* comparison) {
  std::string text = "<nav aria-label=\"Contents\">";
  const auto link = [&](const std::string& id, const std::string& name) {
    text += cat("<a href=\"#", id, "\">", escape_html(name), "</a> ");
  };
  if (comparison) link("compare", "Beside another run");
  bool single = false;
  for (const Family& family : all) {
    if (family.design != "single")
      link(family.id, family.kicker);
    else if (!std::exchange(single, true))
      link("single", "One part at a time");
  }
  link("checks", "Checks");
  link("manifest", "How it was made");
  return text + "</nav>\n";
}

}  // namespace

std::vector<std::string> warnings_of(const Run& run) {
  std::vector<std::string> warnings;
  for (const Check& check : run.checks)
    if (check.outcome == Check::Outcome::failed)
      warnings.push_back(cat("Check ", check.id, " failed, so none of these numbers may be used."));
  const std::string limit = text_at(run.manifest, "limit"), from = text_at(run.manifest, "limit_from");
  if (!limit.empty())
    warnings.push_back(cat("Only the first ", limit, " items were scored",
                           from.empty() ? "" : " (" + from + ")", ": this is a test run, not a study."));
  if (text_at(run.manifest, "finished").empty())
    warnings.push_back("The manifest records no end: the study was not finished.");
  const auto with_status = [&](const char* status) {
    return std::count_if(run.results.begin(), run.results.end(),
                         [&](const Result& r) { return r.status == status; });
  };
  if (const auto failed = with_status("failed"))
    warnings.push_back(cat(counted(failed, "result"), " failed and count nowhere below."));
  if (const auto early = with_status("stopped_early"))
    warnings.push_back(cat(counted(early, "result"), " stopped early under the declared rule (",
                           text_at(run.manifest, "plan/stop_rule", "none recorded"), ")."));
  return warnings;
}

std::string page_of(const Run& run, const Comparison* comparison, const std::string& tables) {
  const auto all = families(run);
  std::string text = head(run, title_of_page(run)) + contents(all, comparison) + "</header>\n";
  if (comparison) text += comparison_section(*comparison, tables);
  bool single = false;
  for (const Family& family : all) {
    if (family.design != "single")
      text += family_section(run, family, tables);
    else if (!std::exchange(single, true))
      text += single_section(run, all, tables);
  }
  text += check_section(run) + manifest_section(run);
  text += paragraph("fine", cat("Written by plait report from the run folder ", run.path,
                                "; tables and plot data are in ", tables, "."));
  return text + "</main>\n</body>\n</html>\n";
}

std::map<std::string, std::string> tables_of(const Run& run, const Comparison* comparison) {
  std::map<std::string, std::string> files;
  const auto add = [&](const std::string& id, const Table& table) {
    files[id + ".csv"] = csv_of(table);
    files[id + ".tex"] = latex_of(table);
  };
  for (const Family& family : families(run)) {
    add(family.id, family_table(run, family));
    if (family.design == "group") add("all-measures", measure_table(run, family));
  }
  if (!run.draws.empty()) files["control-draws.csv"] = csv_of(draw_table(run));
  if (comparison) add("compare", comparison_table(*comparison));
  return files;
}

std::string summary_of(const Run& run, const Comparison* comparison) {
  std::string text = cat(title_of_page(run), "\n", deck(run), "\n");
  for (const std::string& warning : warnings_of(run)) text += cat("\nCAUTION: ", warning, "\n");
  if (comparison) {
    text += cat("\nBeside ", comparison->right->id(), "\n  ", comparison->headline, "\n");
    for (const auto& d : comparison->differences)
      text += cat("  CAUTION: not the same ", d.what, ": ", d.left, " and ", d.right, "\n");
  }
  for (const Family& family : families(run)) text += cat("\n", family.kicker, "\n  ", family.headline, "\n");
  const auto passed = std::count_if(run.checks.begin(), run.checks.end(),
                                    [](const Check& c) { return c.outcome == Check::Outcome::passed; });
  return text + cat("\nChecks: ", passed, " of ", run.checks.size(), " passed\n");
}

Json json_of(const Run& run, const Comparison* comparison) {
  Json json = {{"run_id", run.id()},
               {"model", run.model()},
               {"warnings", warnings_of(run)},
               {"families", Json::array()},
               {"checks", Json::array()}};
  for (const Family& f : families(run)) {
    Json rows = Json::array();
    for (const Result* r : f.rows) rows.push_back(run.condition(*r).id);
    json["families"].push_back({{"id", f.id},
                                {"design", f.design},
                                {"headline", f.headline},
                                {"detail", f.detail},
                                {"comparisons", f.rows.front()->n_comparisons},
                                {"conditions", rows}});
  }
  for (const Check& c : run.checks) {
    const Json passed =
        c.outcome == Check::Outcome::not_applicable ? Json() : Json(c.outcome == Check::Outcome::passed);
    json["checks"].push_back({{"id", c.id}, {"name", c.name}, {"passed", passed}, {"detail", c.detail}});
  }
  if (!comparison) return json;
  Json differences = Json::array();
  for (const auto& d : comparison->differences)
    differences.push_back({{"what", d.what}, {"left", d.left}, {"right", d.right}});
  json["compare"] = {{"run_id", comparison->right->id()},
                     {"headline", comparison->headline},
                     {"conditions", comparison->pairs.size()},
                     {"differences", differences}};
  return json;
}

}  // namespace plait::ablate::report
