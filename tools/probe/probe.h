// plait probe: programs that look inside a model, or at what theory says of one. A probe is a class, one pair
// of files of its name, and a row in probes.cc; README.md says what each measures.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/graph/config.h"
#include "tools/plot/svg.h"
#include "tools/program.h"

namespace plait::probe {

// One picture of --plot. A page draws it at two widths, so it is kept as what draws it.
struct Figure {
  std::string caption;                                                   // one or two sentences under it
  std::function<plot::Svg(const std::string& name, double width)> draw;  // name: unique on the page
};

// A chart of tools/plot (anything with a `caption` and a `draw(chart, width)`) as a figure.
template <class Chart>
Figure figure_of(Chart chart, std::string caption) {
  return {std::move(caption), [chart = std::move(chart)](const std::string& name, double width) mutable {
            chart.caption.name = name;
            return draw(chart, width);
          }};
}

// What a probe found.
struct Findings {
  std::string text;             // for standard output: tables (tools/program.h, table) and sentences
  Json json = Json::object();   // the same and more, numbers in full; the verb adds "probe"
  std::vector<Figure> figures;  // for --plot; at least one
};

class Probe {
 public:
  virtual ~Probe() = default;
  // The probe's own flags; the verb adds --plot and the common ones.
  virtual void add_flags(CLI::App& verb) = 0;
  // Throws UsageError for flags that do not go together, Error for bad input. Prints nothing.
  virtual Findings run(const Common& common) const = 0;
};

struct Entry {
  const char* name;  // of the probe and its files
  const char* help;  // one line
  std::unique_ptr<Probe> (*make)();
};
std::span<const Entry> probes();

// The figures as one file that needs nothing else: an SVG, or a page with the text below them.
std::string svg_of(const Findings& findings);
std::string page_of(const Entry& entry, const Findings& findings);

}  // namespace plait::probe
