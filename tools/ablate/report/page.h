// What a report consists of: one page, tables for papers, data to plot, and words for a terminal or a
// program.
#pragma once

#include <map>
#include <string>

#include "tools/ablate/report/compare.h"

namespace plait::ablate::report {

// One self-contained HTML page: nothing is loaded, nothing is run. `tables` is the folder that holds what the
// page has no room for, as the reader finds it. `comparison` may be null.
std::string page_of(const Run& run, const Comparison* comparison, const std::string& tables);

// The files of that folder by name: per family a LaTeX table (.tex) and its numbers (.csv), all control
// draws, and the comparison.
std::map<std::string, std::string> tables_of(const Run& run, const Comparison* comparison);

// The sentences, for a terminal.
std::string summary_of(const Run& run, const Comparison* comparison);
Json json_of(const Run& run, const Comparison* comparison);

// What makes a reader doubt the whole run: a failed check, a limited or unfinished study, conditions that
// failed.
std::vector<std::string> warnings_of(const Run& run);

}  // namespace plait::ablate::report
