// plait report: the page, tables and plot data of a run folder.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>

#include "runtime/base/error.h"
#include "tools/ablate/report/page.h"
#include "tools/program.h"
#include "tools/verbs.h"

namespace plait {
namespace {

namespace fs = std::filesystem;
using namespace ablate::report;

struct Report {
  Common common;
  std::string folder, other, html, tables;

  int run() const;
};

void write_whole(const std::string& path, const std::string& text) {
  OutputFile file(path);
  file.write(text);
  file.commit();
}

int Report::run() const {
  const fs::path page = html.empty() ? fs::path(folder) / "report.html" : fs::path(html);
  const fs::path beside = tables.empty() ? page.parent_path() / "tables" : fs::path(tables);
  const Run read = read_run(folder);
  std::optional<Run> second;
  std::optional<Comparison> comparison;
  if (!other.empty()) comparison = compare(read, second.emplace(read_run(other)));
  const Comparison* shown = comparison ? &*comparison : nullptr;

  // Everything is made before anything is written.
  const std::string text = page_of(read, shown, tables.empty() ? "tables" : tables);
  const auto files = tables_of(read, shown);
  std::error_code error;
  fs::create_directories(beside, error);
  if (error) fail("cannot make folder '", beside.string(), "': ", error.message());
  for (const auto& [name, content] : files) write_whole((beside / name).string(), content);
  write_whole(page.string(), text);

  if (!common.json_only()) print(summary_of(read, shown));
  flush_output();
  Json json = json_of(read, shown);
  json["html"] = page.string();
  json["tables"] = beside.string();
  write_json(common, json);
  note(common, cat("wrote '", page.string(), "' and ", files.size(), " files in '", beside.string(), "'"));
  return kDone;
}

}  // namespace

void add_report(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Report>();
  CLI::App* verb =
      program.add_subcommand("report", "Make the page, tables and plot data of an ablation study");
  verb->add_option("RUN_DIR", args->folder, "A run folder of plait ablate")->required();
  verb->add_option("--compare", args->other, "A second run, side by side with the first")
      ->type_name("RUN_DIR");
  verb->add_option("--html", args->html, "The page (default: report.html in the run folder)")
      ->type_name("FILE");
  verb->add_option("--latex", args->tables,
                   "Folder for LaTeX tables and plot data (default: tables beside the page)")
      ->type_name("DIR");
  add_common(*verb, args->common, "not used");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
