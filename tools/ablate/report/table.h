// One table, three forms: on the page, for LaTeX, as data to plot.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/report/findings.h"

namespace plait::ablate::report {

struct Table {
  struct Cell {
    std::string shown;  // to people
    std::string raw;    // to programs: full precision, plain minus
  };
  struct Column {
    std::string title, key;  // for people; for programs
    bool number = false;
  };
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
};

// A table in a box that scrolls sideways; beyond `most` rows, a sentence says how many more `elsewhere`
// holds.
std::string html_of(const Table& table, std::size_t most, const std::string& elsewhere);
// A booktabs tabular and nothing around it; \input it into a table of your own.
std::string latex_of(const Table& table);
std::string csv_of(const Table& table);

// The rows of a family in the primary measure.
Table family_table(const Run& run, const Family& family);
// Conditions down, every measure across: "+0.81 [..]".
Table measure_table(const Run& run, const Family& family);
// Every draw of every control set.
Table draw_table(const Run& run);

std::string raw_number(double value);  // the shortest text that reads back as the same double; empty for NaN

}  // namespace plait::ablate::report
