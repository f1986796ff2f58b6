// The three kinds of chart the report is made of, each drawn at the width it will have on paper or screen.
#pragma once

#include <string>
#include <vector>

#include "tools/ablate/report/controls.h"
#include "tools/ablate/report/effect.h"
#include "tools/ablate/report/svg.h"

namespace plait::ablate::report {

// What names a figure and says it in words.
struct Caption {
  std::string name, title, description;
};

// Lines over a common horizontal axis, in panels one under another with one vertical scale.
struct LineChart {
  struct Point {
    double x = 0;
    Effect effect;
    Certainty certainty = Certainty::clear;
    int kind = 0;  // shape and colour of the mark
    std::string tip;
  };
  struct Series {
    std::string name;  // written at its end; empty for none
    int colour = 0;    // class s0..
    std::vector<Point> points;
  };
  struct Panel {
    std::string title;
    std::vector<Series> series;
  };
  enum class Axis { linear, doubling };  // doubling: base-2 logarithm, for lengths
  // Of the vertical axis. tenfold: base-10 logarithm, for positive values; five powers of ten at most, what
  // lies below stands at the bottom.
  enum class Scale { linear, tenfold };
  Caption caption;
  std::string x_label, unit;  // unit: of the vertical scale
  Axis axis = Axis::linear;
  Scale scale = Scale::linear;
  std::vector<Panel> panels;
  std::vector<int> strip;  // kind of each block, drawn under the axis; empty for none
};
std::string draw(const LineChart& chart, double width);

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
std::string draw(const ForestChart& chart, double width);

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
std::string draw(const HeatMap& map, double width);

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
std::string draw(const ControlChart& chart, double width);

// Points in the plane, some of them joined as a front and named.
struct ScatterChart {
  struct Point {
    double x = 0, y = 0;
    std::string label;  // written where it fits, if `named`
    bool named = false;
    int kind = 0;
    std::string tip;
  };
  enum class Guide { front, diagonal };  // a staircase through the named points, or the line of equality
  Caption caption;
  std::string title, x_label, y_label;
  std::string (*x_tick)(double value, double step) = nullptr;
  Guide guide = Guide::front;
  std::vector<Point> points;
};
std::string draw(const ScatterChart& chart, double width);

}  // namespace plait::ablate::report
