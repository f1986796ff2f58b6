// plait ablate: a study of what each component contributes.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "runtime/run/batch.h"
#include "tools/ablate/experiment.h"
#include "tools/ablate/plan.h"
#include "tools/ablate/sites.h"
#include "tools/program.h"
#include "tools/verbs.h"
#include "tools/within.h"

namespace plait {
namespace {

struct Ablate {
  Common common;
  std::string model, spec, out, sweep, study, controls, documents, reference;
  std::vector<std::string> texts, tasks;
  std::vector<Index> lengths;
  std::optional<double> scored;
  std::optional<Index> boot, num_fewshot, limit;
  bool resume = false, list = false;

  int run() const;
  ablate::Study planned(const Model& opened) const;
};

// As the shell gave it.
std::string command_line() {
  std::string text = read_file("/proc/self/cmdline");
  while (!text.empty() && text.back() == '\0') text.pop_back();
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

void list_interventions() {
  std::vector<std::vector<std::string>> rows;
  for (const ablate::Alias& alias : ablate::aliases()) rows.push_back({alias.name, alias.summary});
  print(table(rows, "ll"));
}

// The study of the file or the flags; what the flags say beside it goes before what the file says.
// A file's name or an object in JSON, always as an object.
Json task_of(const std::string& text) {
  if (!text.starts_with("{")) return {{"file", text}};
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) fail("--tasks takes a file or an object in JSON, found '", text.substr(0, 60), "'");
  return json;
}

ablate::Study Ablate::planned(const Model& opened) const {
  ablate::Study chosen;
  if (!spec.empty()) {
    const auto slash = spec.find_last_of('/');
    const std::string folder = slash == std::string::npos ? "" : spec.substr(0, slash);
    chosen = ablate::parse_study(ablate::read_document(read_file(spec), spec), folder);
  } else if (!study.empty()) {
    chosen = ablate::study_named(study, opened);
  } else {
    chosen.name = "sweep";
    chosen.designs = ablate::parse_sweep(sweep);
  }
  if (!controls.empty()) {
    const auto targets = chosen.controls.targets;
    chosen.controls = ablate::parse_controls(controls);
    if (chosen.controls.targets.empty()) chosen.controls.targets = targets;
  }
  if (!texts.empty()) chosen.score.nll = texts;
  if (!tasks.empty()) chosen.score.tasks.clear();
  for (const std::string& task : tasks) chosen.score.tasks.push_back(task_of(task));
  for (Json& task : chosen.score.tasks) {
    if (num_fewshot) task["num_fewshot"] = *num_fewshot;
    if (limit) task["limit"] = *limit;
  }
  if (limit)
    note(common, cat("--limit ", *limit, " asks a part of every task only: for tests, not for results"));
  if (!lengths.empty()) chosen.score.lengths = lengths;
  if (!documents.empty()) chosen.score.documents = documents;
  if (!reference.empty()) chosen.reference.data = reference;
  if (scored) chosen.score.scored = *scored;
  if (boot) chosen.stats.boot = *boot;
  if (common.seed) chosen.seed = *common.seed;
  return chosen;
}

int Ablate::run() const {
  if (list) {
    list_interventions();
    return kDone;
  }
  if (model.empty()) throw UsageError("plait ablate needs a MODEL; see plait ablate --help");
  if (int{!spec.empty()} + int{!study.empty()} + int{!sweep.empty()} != 1)
    throw UsageError("plait ablate takes one of SPEC, --study and --sweep");
  ablate::ExperimentSettings settings;
  settings.model_file = model;
  settings.model = open_model(model, common);
  check_causal(*settings.model);
  settings.tokenizer = tokenizer_of(*settings.model);
  settings.study = planned(*settings.model);
  settings.compute = common.compute(parse_numerics(settings.study.baseline));
  settings.memory = common.memory;
  settings.folder = out.empty() ? "plait-" + settings.study.name : out;
  if (resume) settings.start = ablate::ExperimentSettings::Start::resume;
  if (limit) settings.limits = ablate::ExperimentSettings::Limits::flag;
  settings.command_line = command_line();
  settings.version = PLAIT_VERSION;
  Progress progress(common, "scoring");
  settings.say = [&](const std::string& line) {
    progress.clear();
    note(common, line);
  };
  settings.progress = [&](double share, const std::string& detail) { progress.update(share, detail); };
  const ablate::ExperimentOutcome outcome = ablate::conduct(settings);
  progress.clear();
  if (!outcome.valid) {
    note(common, cat("no results are written: ", outcome.failed_check));
    return kCheckFailed;
  }
  write_json(common, outcome.run);
  if (!common.json_only())
    print(cat("results in ", settings.folder, "; plait report ", settings.folder, " shows them\n"));
  flush_output();
  return kDone;
}

}  // namespace

void add_ablate(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Ablate>();
  CLI::App* verb = program.add_subcommand("ablate", "Measures what each component contributes");
  verb->add_option("MODEL", args->model, "A model file");
  verb->add_option("SPEC,--ablate,--config", args->spec, "A study as YAML or JSON");
  verb->add_option("--study", args->study, cat("A study by name: ", joined(ablate::study_names())))
      ->type_name("NAME");
  verb->add_option("--sweep", args->sweep,
                   "Designs and operators: mixer.zero,mlp.zero or window:layer.skip;pair:mixer")
      ->type_name("SITES");
  verb->add_option("--controls", args->controls,
                   "Random controls: draws and ways of matching, count:199,params,depth")
      ->type_name("C");
  verb->add_option("--text", args->texts, "Texts to score")->type_name("F..");
  verb->add_option("--tasks", args->tasks,
                   "Tasks: JSONL files, or generators as {\"generator\": \"needle\", ..}")
      ->type_name("T..");
  verb->add_option("--num_fewshot", args->num_fewshot, "Examples before every item of a task")
      ->type_name("N");
  verb->add_option("--limit", args->limit, "The first N items of every task only: for tests")->type_name("N");
  verb->add_option("--documents", args->documents,
                   "Where documents begin: line, blank, heading or jsonl:FIELD (default blank)")
      ->type_name("RULE");
  verb->add_option("--lengths", args->lengths, "Context lengths; default 2048 and one stream")
      ->type_name("N..");
  verb->add_option("--reference", args->reference,
                   "The text that mean, resample and their like take values from")
      ->type_name("F");
  verb->add_option("--scored", args->scored, "Share of the positions that are scored")
      ->check(within(0, 1))
      ->type_name("S");
  verb->add_option("--boot", args->boot, "Bootstrap resamples (default 10000)")->type_name("N");
  verb->add_option("--out,--output_path", args->out, "The run folder (default plait-STUDY)")
      ->type_name("DIR");
  verb->add_flag("--resume", args->resume, "Go on with a run folder; nothing is scored twice");
  verb->add_flag("--list", args->list, "List the interventions");
  add_common(*verb, args->common, "exact");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
