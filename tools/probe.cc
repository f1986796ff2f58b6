// plait probe: one probe by name; without a name, the list of them.
#include <CLI/CLI.hpp>

#include "runtime/base/error.h"
#include "runtime/text/utf8.h"
#include "tools/probe/probe.h"
#include "tools/program.h"
#include "tools/verbs.h"

namespace plait {
namespace {

using namespace probe;

struct Args {
  const Entry& entry;
  std::unique_ptr<Probe> probe;
  Common common;
  std::string plot;

  int run() const;
};

int Args::run() const {
  const bool page = plot.ends_with(".html");
  if (!plot.empty() && !page && !plot.ends_with(".svg"))
    throw UsageError(cat("--plot: '", plot, "' ends neither in .svg nor in .html"));
  Findings found = probe->run(common);
  found.json["probe"] = entry.name;
  if (!plot.empty()) {
    OutputFile file(plot);
    file.write(page ? page_of(entry, found) : svg_of(found));
    file.commit();
  }
  if (!common.json_only()) print(found.text);
  flush_output();
  write_json(common, found.json);
  return kDone;
}

int list_probes() {
  std::vector<std::vector<std::string>> rows = {{"PROBE", "SUMMARY"}};
  for (const Entry& entry : probes()) rows.push_back({entry.name, entry.help});
  print(table(rows, "ll") + "\nplait probe PROBE --help lists the flags of one.\n");
  return kDone;
}

[[noreturn]] void refuse(const std::string& word) {
  if (word.starts_with("-"))
    throw UsageError(cat("probe has no flag '", to_valid_utf8(word), "' of its own"));
  std::string names;
  for (const Entry& entry : probes()) names += cat(names.empty() ? "" : ", ", entry.name);
  throw UsageError(cat("there is no probe '", to_valid_utf8(word), "'; the probes are ", names));
}

}  // namespace

void add_probe(CLI::App& program, Action& chosen) {
  CLI::App* verb =
      program.add_subcommand("probe", "Look inside a model, or at theory; alone: list the probes");
  verb->require_subcommand(0, 1);
  for (const Entry& entry : probes()) {
    auto args = std::make_shared<Args>(Args{entry, entry.make(), {}, {}});
    CLI::App* one = verb->add_subcommand(entry.name, entry.help);
    args->probe->add_flags(*one);
    one->add_option("--plot", args->plot, "Write the figures, by the name's end as .svg or .html")
        ->type_name("FILE");
    add_common(*one, args->common, "exact");
    one->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
  }
  verb->allow_extras();  // an unknown name is refused below, with the names there are
  verb->callback([verb, &chosen] {
    if (!verb->get_subcommands().empty()) return;
    if (!verb->remaining().empty()) refuse(verb->remaining().front());
    chosen = list_probes;
  });
}

}  // namespace plait
