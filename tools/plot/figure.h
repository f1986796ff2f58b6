// A figure of a page: drawn twice, for a phone and for a screen; the style sheet shows one.
#pragma once

#include <string>

#include "tools/plot/svg.h"

namespace plait::plot {

inline constexpr double kWide = 720, kNarrow = 343;  // px: the text column of a page, of a phone

// draw(name, width) gives an Svg; `name` is unique on the page; `caption` is HTML.
template <class Draw>
std::string figure_at_both_widths(Draw&& draw, const std::string& name, const std::string& caption) {
  return "<figure>\n<div class=\"wide\">" + draw(name + "-wide", kWide).str() +
         "</div>\n<div class=\"narrow\">" + draw(name + "-narrow", kNarrow).str() + "</div>\n<figcaption>" +
         caption + "</figcaption>\n</figure>\n";
}

}  // namespace plait::plot
