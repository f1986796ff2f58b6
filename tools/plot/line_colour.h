#pragma once

#include <cstddef>

namespace plait::plot {

// Colour of line i of a LineChart: the style sheet has s0 to s6, which then begin again.
inline int line_colour(std::size_t i) { return static_cast<int>(i % 7); }

}  // namespace plait::plot
