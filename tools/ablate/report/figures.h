// The figures of a report, as HTML: each is drawn twice, for a phone and for a page, and the style sheet
// shows one.
#pragma once

#include <string>

#include "tools/ablate/report/chart.h"
#include "tools/ablate/report/findings.h"
#include "tools/plot/figure.h"

namespace plait::ablate::report {

// Mixer kinds in the order in which they come up; their place is their colour and shape.
std::vector<std::string> kinds_of(const Run& run);
// The model as a row of blocks, with the key to colours and shapes.
std::string model_figure(const Run& run);
// All figures of single sites: curves by block, one panel per intervention, and the heat map of all measures.
std::string single_figures(const Run& run);
// The figures of any other family; empty where a table says it all.
std::string figures_of(const Run& run, const Family& family);

// A figure with a caption, drawn at both widths.
template <class Chart>
std::string figure(Chart chart, const std::string& caption) {
  const std::string own = chart.caption.name;
  const auto drawn = [&](const std::string& name, double width) {
    chart.caption.name = name;
    return draw(chart, width);
  };
  return plot::figure_at_both_widths(drawn, own, caption);
}

// "Silencing block 3: +0.2 nats per token, +0.1 to +0.3, p = 0.01": what a mark says when it is pointed at.
std::string tip_of(const Run& run, const Result& result);

}  // namespace plait::ablate::report
