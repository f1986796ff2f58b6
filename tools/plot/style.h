// The style sheet of the page: light and dark by the reader's preference, for phone, screen and paper.
#pragma once

namespace plait::plot {

const char* style_sheet();

}  // namespace plait::plot
