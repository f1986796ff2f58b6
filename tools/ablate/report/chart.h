// The charts of a report besides those of tools/plot.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/report/controls.h"
#include "tools/plot/chart.h"

namespace plait::ablate::report {

using plot::Caption;
using plot::LineChart;
using plot::ScatterChart;
using plot::Svg;

// Effects one under another with their intervals: dots, or bars from zero.
struct ForestChart {
  struct Row {
    std::string label;
    Effect effect;
    Certainty certainty = Certainty::clear;
    int kind = 0;
    double reference = kNone;  // a second value, hollow
    std::string tip;
  };
  enum class Style { dots, bars };
  Caption caption;
  std::string unit;
  Style style = Style::dots;
  std::vector<Row> rows;
};
Svg draw(const ForestChart& chart, double width);

// Rows of cells, one per block; a row's darkest cell is its largest effect.
struct HeatMap {
  struct Row {
    std::string group, label;  // the group is written once above its rows
    std::vector<Effect> cells;
    std::vector<Certainty> certainty;
    std::vector<std::string> tips;
    std::string unit;
  };
  Caption caption;
  std::vector<Row> rows;
  std::vector<int> strip;
};
Svg draw(const HeatMap& map, double width);

// Draws of matched random sets as histograms, the target marked.
struct ControlChart {
  struct Panel {
    std::string title, verdict;  // "as many blocks"; "2 of 199 .., p = 0.015"
    std::vector<ControlSet::Draw> draws;
    Effect target;
    bool target_collapsed = false;
  };
  Caption caption;
  std::string unit, target_name;
  std::vector<Panel> panels;
};
Svg draw(const ControlChart& chart, double width);

}  // namespace plait::ablate::report
