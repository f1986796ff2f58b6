// Square maps side by side, one shade scale for all: attention weights.
#pragma once

#include <string>
#include <vector>

#include "tools/plot/chart.h"
#include "tools/plot/svg.h"

namespace plait::plot {

struct MapGrid {
  struct Map {
    std::string title, subtitle;
    std::vector<double> values;  // [size, size], rows from the top; magnitudes, 1 is darkest
  };
  Caption caption;
  int size = 0;
  std::string x_label, y_label;
  std::vector<Map> maps;
};
Svg draw(const MapGrid& grid, double width);

}  // namespace plait::plot
