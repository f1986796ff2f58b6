#include <algorithm>
#include <cmath>

#include "tools/plot/chart.h"
#include "tools/plot/text.h"

namespace plait::plot {
namespace {

constexpr double kLeft = 46, kTop = 40, kPlot = 210, kFoot = 40, kRight = 14;

struct Box {
  double left, top, right, bottom;
  bool touches(const Box& o) const {
    return left < o.right && o.left < right && top < o.bottom && o.top < bottom;
  }
};

class Drawing {
 public:
  Drawing(const ScatterChart& chart, double width)
      : chart_(chart),
        svg_(width, kTop + kPlot + kFoot, chart.caption.name, chart.caption.title,
             chart.caption.description) {
    std::vector<double> xs, ys;
    for (const auto& p : chart.points) xs.push_back(p.x), ys.push_back(p.y);
    const Range x = whole_range(xs),
                y = chart.guide == ScatterChart::Guide::diagonal ? whole_range(ys) : readable_range(ys);
    x_ = {x.low, x.high, kLeft, width - kRight};
    y_ = {y.low, y.high, kTop + kPlot, kTop};
    if (chart.guide == ScatterChart::Guide::diagonal) {
      x_.from = y_.from = std::min(x.low, y.low);
      x_.to = y_.to = std::max(x.high, y.high);
    }
  }

  Svg run() {
    svg_.text(0, 14, Anchor::start, "strong", fitted(chart_.title, svg_.width(), kLabelSize + 1));
    svg_.text(0, 30, Anchor::start, "muted", fitted(chart_.y_label, svg_.width(), kLabelSize));
    grid();
    guide();
    for (const auto& p : chart_.points)
      if (!p.named) dot(p);
    for (const auto& p : chart_.points)
      if (p.named) dot(p);
    labels();
    return svg_;
  }

 private:
  Range whole_range(const std::vector<double>& values) const {
    const bool zero = chart_.from_zero || values.empty();
    double low = zero ? 0 : values[0], high = low;
    for (const double v : values) low = std::min(low, v), high = std::max(high, v);
    if (high == low) high = low + 1;
    const double margin = 0.05 * (high - low);
    return {low < 0 || !zero ? low - margin : low, high + margin};
  }

  void grid() {
    const auto ys = ticks(y_.from, y_.to, 5);
    for (const double v : ys) {
      svg_.line(kLeft, y_(v), svg_.width() - kRight, y_(v), std::abs(v) < 1e-12 ? "zero" : "grid");
      svg_.text(kLeft - 6, y_(v) + 4, Anchor::end, "muted", tick_label(v, ys.size() > 1 ? ys[1] - ys[0] : 1));
    }
    const auto xs = ticks(x_.from, x_.to, 4);
    const double step = xs.size() > 1 ? xs[1] - xs[0] : 1;
    for (const double v : xs) {
      const std::string text = chart_.x_tick ? chart_.x_tick(v, step) : tick_label(v, step);
      const double half = text_width(text, kLabelSize) / 2;
      svg_.line(x_(v), kTop + kPlot, x_(v), kTop + kPlot + 4, "tick");
      svg_.text(std::min(x_(v), svg_.width() - half), kTop + kPlot + 17, Anchor::middle, "muted", text);
    }
    svg_.text(svg_.width() - kRight, kTop + kPlot + 34, Anchor::end, "muted", chart_.x_label);
  }

  double y_at(double value) const { return y_(std::min(value, y_.to)); }

  void guide() {
    if (chart_.guide == ScatterChart::Guide::none) return;
    if (chart_.guide == ScatterChart::Guide::diagonal) {
      svg_.line(x_(x_.from), y_(x_.from), x_(x_.to), y_(x_.to), "link");
      return;
    }
    std::vector<const ScatterChart::Point*> front;
    for (const auto& p : chart_.points)
      if (p.named) front.push_back(&p);
    std::sort(front.begin(), front.end(), [](auto* a, auto* b) { return a->x < b->x; });
    PathData steps;
    for (std::size_t i = 0; i < front.size(); ++i) {
      if (i == 0)
        steps.move(x_(front[i]->x), y_at(front[i]->y));
      else
        steps.to(x_(front[i - 1]->x), y_at(front[i]->y)).to(x_(front[i]->x), y_at(front[i]->y));
    }
    if (front.size() > 1) svg_.path(steps.str(), "front");
  }

  void dot(const ScatterChart::Point& p) {
    const bool context = !p.named;
    if (p.y > y_.to) return;  // past the scale; the table has it
    svg_.marker(p.kind, x_(p.x), y_at(p.y), context ? 2.4 : 4,
                context ? Svg::Fill::hollow : Svg::Fill::filled, p.tip);
  }

  // A label is written only where it touches no label before it and no named dot; on a diagonal, no dot.
  void labels() {
    std::vector<Box> taken;
    for (const auto& p : chart_.points)
      if ((p.named || chart_.guide == ScatterChart::Guide::diagonal) && p.y <= y_.to)
        taken.push_back({x_(p.x) - 5, y_at(p.y) - 5, x_(p.x) + 5, y_at(p.y) + 5});
    for (const auto& p : chart_.points) {
      if (!p.named || p.label.empty() || p.y > y_.to) continue;
      const std::string text = fitted(p.label, 150, kLabelSize);
      const double w = text_width(text, kLabelSize), x = x_(p.x), y = y_at(p.y);
      const std::pair<double, double> places[] = {
          {x - w - 8, y + 4}, {x + 8, y + 4}, {x - w / 2, y - 9}, {x - w / 2, y + 18}};
      for (const auto& [left, base] : places) {
        const Box box{left, base - 11, left + w, base + 3};
        const bool inside = box.left >= kLeft && box.right <= svg_.width() && box.top >= kTop - 4 &&
                            box.bottom <= kTop + kPlot - 1;
        if (!inside ||
            std::any_of(taken.begin(), taken.end(), [&](const Box& other) { return other.touches(box); }))
          continue;
        svg_.text(left, base, Anchor::start, "label halo", text);
        taken.push_back(box);
        break;
      }
    }
  }

  const ScatterChart& chart_;
  Svg svg_;
  Scale x_, y_;
};

}  // namespace

Svg draw(const ScatterChart& chart, double width) { return Drawing(chart, width).run(); }

}  // namespace plait::plot
