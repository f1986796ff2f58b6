#include "tools/plot/map_grid.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/plot/text.h"

namespace plait::plot {
namespace {

constexpr double kTitle = 34, kGap = 14, kFoot = 42, kLeast = 150;
constexpr int kShades = 7;               // classes w0 .. w6
constexpr double kFaintest = 1.0 / 512;  // values below it are not drawn

// A shade per factor of about two and a half: attention spreads over orders of magnitude.
int shade_of(double value) {
  const double share = 1 + std::log(std::min(value, 1.0)) / -std::log(kFaintest);
  return std::clamp(static_cast<int>(share * kShades), 0, kShades - 1);
}

double least_of(int shade) {
  return std::exp((static_cast<double>(shade) / kShades - 1) * -std::log(kFaintest));
}

class Drawing {
 public:
  Drawing(const MapGrid& grid, double width)
      : grid_(grid),
        columns_(std::max(1, static_cast<int>((width + kGap) / (kLeast + kGap)))),
        side_((width - (columns_ - 1) * kGap) / columns_),
        rows_((static_cast<int>(grid.maps.size()) + columns_ - 1) / columns_),
        svg_(width, rows_ * pitch() + kFoot, grid.caption.name, grid.caption.title,
             grid.caption.description) {}

  Svg run() {
    for (std::size_t i = 0; i < grid_.maps.size(); ++i)
      map(grid_.maps[i], static_cast<int>(i) % columns_ * (side_ + kGap),
          static_cast<int>(i) / columns_ * pitch());
    key(rows_ * pitch());
    return svg_;
  }

 private:
  double pitch() const { return kTitle + side_ + kGap; }

  void map(const MapGrid::Map& m, double x, double y) {
    svg_.text(x, y + 13, Anchor::start, "strong", fitted(m.title, side_, kLabelSize + 1));
    svg_.text(x, y + 28, Anchor::start, "muted", fitted(m.subtitle, side_, kLabelSize));
    svg_.rect(x, y + kTitle, side_, side_, "empty");
    for (int shade = 0; shade < kShades; ++shade) {
      const std::string cells = runs(m, shade, x, y + kTitle);
      if (!cells.empty())
        svg_.path(cells, cat("w", shade), cat(m.title, ", ", share(least_of(shade)), " and more"));
    }
  }

  // Neighbours of one shade in a row are one rectangle.
  std::string runs(const MapGrid::Map& m, int shade, double x, double y) const {
    const double cell = side_ / grid_.size;
    PathData data;
    for (int r = 0; r < grid_.size; ++r)
      for (int c = 0, end; c < grid_.size; c = end) {
        end = c + 1;
        if (!has(m, r, c, shade)) continue;
        while (end < grid_.size && has(m, r, end, shade)) ++end;
        const double left = x + c * cell, right = x + end * cell, top = y + r * cell, bottom = top + cell;
        data.move(left, top).to(right, top).to(right, bottom).to(left, bottom).close();
      }
    return data.str();
  }

  bool has(const MapGrid::Map& m, int r, int c, int shade) const {
    const double value = m.values[static_cast<std::size_t>(r * grid_.size + c)];
    return value >= kFaintest && shade_of(value) == shade;
  }

  static std::string share(double value) { return decimal(100 * value, value < 0.1 ? 1 : 0) + " %"; }

  void key(double y) {
    double x = 0;
    for (int shade = 0; shade < kShades; ++shade) {
      const std::string text = share(least_of(shade));
      svg_.rect(x, y, 12, 12, cat("w", shade));
      svg_.text(x, y + 25, Anchor::start, "muted", text);
      x += text_width(text, kLabelSize) + 4;
    }
    svg_.text(svg_.width(), y + 40, Anchor::end, "muted",
              fitted(cat("down: ", grid_.y_label, ", across: ", grid_.x_label), svg_.width(), kLabelSize));
  }

  const MapGrid& grid_;
  int columns_;
  double side_;
  int rows_;
  Svg svg_;
};

}  // namespace

Svg draw(const MapGrid& grid, double width) { return Drawing(grid, width).run(); }

}  // namespace plait::plot
