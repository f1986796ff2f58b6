// Charts that reports and probes share, each drawn at the width it will have on paper or screen.
#pragma once

#include <string>
#include <vector>

#include "tools/plot/effect.h"
#include "tools/plot/svg.h"

namespace plait::plot {

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

    // A value without an interval.
    static Point plain(double x, double value, int kind, std::string tip) {
      return {x, {value, kNone, kNone}, Certainty::clear, kind, std::move(tip)};
    }
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
  enum class Axis { linear, doubling, tenfold };  // doubling, tenfold: base-2, base-10 logarithm
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
Svg draw(const LineChart& chart, double width);

// Points in the plane, some of them joined as a front and named.
struct ScatterChart {
  struct Point {
    double x = 0, y = 0;
    std::string label;  // written where it fits, if `named`
    bool named = false;
    int kind = 0;
    std::string tip;
  };
  // A staircase through the named points, the line of equality, or nothing.
  enum class Guide { front, diagonal, none };
  Caption caption;
  std::string title, x_label, y_label;
  std::string (*x_tick)(double value, double step) = nullptr;
  Guide guide = Guide::front;
  bool from_zero = true;  // with a diagonal: whether both scales reach to 0
  std::vector<Point> points;
};
Svg draw(const ScatterChart& chart, double width);

}  // namespace plait::plot
