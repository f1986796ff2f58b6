#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/ablate/report/chart.h"
#include "tools/plot/text.h"

namespace plait::ablate::report {

using namespace plot;

namespace {

constexpr double kNarrow = 500;
constexpr double kCell = 22, kNarrowCell = 18, kGroup = 26, kLabel = 16, kFoot = 46, kValue = 64;
constexpr int kShades = 7;  // classes w0.. (worse) and b0.. (better)

class Drawing {
 public:
  Drawing(const HeatMap& map, double width)
      : map_(map),
        narrow_(width < kNarrow),
        cell_(narrow_ ? kNarrowCell : kCell),
        left_(narrow_ ? 0 : std::min(0.36 * width, widest_label())),
        right_(width - kValue),
        blocks_(static_cast<double>(map.strip.size())),
        svg_(width, height(), map.caption.name, map.caption.title, map.caption.description) {}

  Svg run() {
    double y = 0;
    for (std::size_t i = 0; i < map_.rows.size(); ++i) {
      if (new_group(i)) {
        svg_.text(0, y + 17, Anchor::start, "strong", fitted(map_.rows[i].group, right_, kLabelSize + 1));
        if (i == 0) svg_.text(svg_.width(), y + 17, Anchor::end, "muted", "largest");
        y += kGroup;
      }
      y += row(map_.rows[i], y);
    }
    axis(y + 2);
    return svg_;
  }

 private:
  bool new_group(std::size_t i) const { return i == 0 || map_.rows[i].group != map_.rows[i - 1].group; }

  double widest_label() const {
    double widest = 0;
    for (const auto& r : map_.rows) widest = std::max(widest, text_width(r.label, kLabelSize));
    return widest + 10;
  }

  double height() const {
    double sum = kFoot;
    for (std::size_t i = 0; i < map_.rows.size(); ++i)
      sum += (new_group(i) ? kGroup : 0) + cell_ + (narrow_ ? kLabel : 0);
    return sum;
  }

  double x_of(std::size_t block) const {
    return left_ + (right_ - left_) * static_cast<double>(block) / blocks_;
  }

  // Returns how much room it took.
  double row(const HeatMap::Row& r, double top) {
    double y = top;
    if (narrow_) {
      svg_.text(0, y + 12, Anchor::start, "label", fitted(r.label, right_, kLabelSize));
      y += kLabel;
    } else {
      svg_.text(0, y + cell_ / 2 + 4, Anchor::start, "label", fitted(r.label, left_ - 6, kLabelSize));
    }
    double largest = 0;
    const Effect* darkest = nullptr;
    for (std::size_t b = 0; b < r.cells.size(); ++b)
      if (r.certainty[b] != Certainty::collapsed && std::abs(r.cells[b].value) > largest)
        largest = std::abs(r.cells[b].value), darkest = &r.cells[b];
    for (std::size_t b = 0; b < r.cells.size(); ++b) cell(r, b, y, largest);
    svg_.text(svg_.width(), y + cell_ / 2 + 4, Anchor::end, "label number",
              darkest ? short_amount(*darkest) : "\u2013");
    return y - top + cell_;
  }

  // Unclear effects are drawn small: little ink for little evidence.
  void cell(const HeatMap::Row& r, std::size_t b, double y, double largest) {
    const double x = x_of(b), w = x_of(b + 1) - x, gap = w > 7 ? 1.5 : w > 4 ? 0.5 : 0, h = cell_ - 2;
    if (r.certainty[b] == Certainty::collapsed) {
      svg_.rect(x, y, w - gap, h, "gone", r.tips[b]);
      if (w > 9) svg_.cross(x + (w - gap) / 2, y + h / 2, std::min(3.5, w / 4));
      return;
    }
    if (!std::isfinite(r.cells[b].value)) return;
    svg_.rect(x, y, w - gap, h, "empty");
    const double share = largest > 0 ? std::abs(r.cells[b].value) / largest : 0;
    const int shade = std::min(kShades - 1, static_cast<int>(std::sqrt(share) * kShades));
    const double inset = r.certainty[b] == Certainty::clear ? 0 : 0.29;
    const double iw = (w - gap) * inset, ih = h * inset;
    svg_.rect(x + iw, y + ih, w - gap - 2 * iw, h - 2 * ih, cat(r.cells[b].value < 0 ? "b" : "w", shade),
              r.tips[b]);
  }

  void axis(double y) {
    for (std::size_t b = 0; b < map_.strip.size(); ++b) {
      const double w = x_of(b + 1) - x_of(b);
      svg_.rect(x_of(b), y, w - (w > 6 ? 1 : 0), 8, cat("fill k", map_.strip[b] % kMarkers));
    }
    const double room = (right_ - left_) / 30;
    for (const double value : ticks(0, blocks_ - 1, static_cast<int>(room))) {
      if (value != std::round(value)) continue;
      const double x = left_ + (right_ - left_) * (value + 0.5) / blocks_;
      svg_.text(std::max(x, kLabelSize / 2), y + 22, Anchor::middle, "muted",
                std::to_string(static_cast<int>(value)));
    }
    svg_.text(right_, y + 38, Anchor::end, "muted", "block");
  }

  const HeatMap& map_;
  bool narrow_;
  double cell_, left_, right_, blocks_;
  Svg svg_;
};

}  // namespace

Svg draw(const HeatMap& map, double width) { return Drawing(map, width).run(); }

}  // namespace plait::ablate::report
